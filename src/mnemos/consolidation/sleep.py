"""Offline consolidation: what a fast store holds is learned by a slow network, phase after phase."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from mnemos.consolidation.episodes import Episodes
from mnemos.consolidation.selection import Selection
from mnemos.consolidation.term import Objective
from mnemos.progress import Advance, silent

Source = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # so many inputs and targets, by chance


@dataclass(frozen=True)
class Phase:
    """A part of sleep: what is replayed, and for how many steps.

    Early sleep replays what is recent, closely coupled to the fast store; late sleep what is remote, which
    the slow network holds itself, and so protects it (Singh, Norman & Schapiro 2022). With several sources
    a batch is made of equal parts, which is interleaving.

    Args:
        name: how people call it.
        steps: of the optimiser, at least 1.
        sources: of experiences: `from_store`, a generator, `integration.chained`, or one's own.
    """

    name: str
    steps: int
    sources: Sequence[Source]

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.sources:
            raise ValueError(f"a phase needs steps and sources, not {self.steps} and {len(self.sources)}")


def from_store(episodes: Episodes, selection: Selection | None = None) -> Source:
    """Replays what the fast store holds, uniformly or as a selection says."""

    def source(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        batch = episodes.sample(rows, selection, generator=generator)
        return batch.inputs, batch.targets

    return source


class Slept(NamedTuple):
    """What a night did."""

    steps: int  # of the optimiser
    losses: dict[str, list[float]]  # of each phase, its mean in every cycle
    released: Int[Tensor, " released"]  # what was let go
    seconds: float


@final
class Sleep:
    """The schedule of one night: its phases in turn, again in every cycle, and then letting go.

        sleep = Sleep(network, optimizer, [Phase("recent", 200, [from_store(episodes, recent(500.0))]),
                                           Phase("remote", 200, [from_store(episodes)])], cycles=3)
        slept = sleep.run()

    The chance of a step is a function of the seed and its number. So a night that was interrupted goes on,
    bit for bit, where `state_dict` was taken, in any process that has the network, the optimiser and the
    store as they were.

    Args:
        model: the slow network.
        optimizer: of it. Where a `Consolidator` is attached to it, its penalties hold in sleep, too.
        phases: in their order.
        objective: outputs and targets to the mean loss of a batch.
        cycles: how often the phases take their turn.
        rows: experiences in a step.
        let_go: what is done after each cycle: it returns the ids of what was released, as
            `letting_go.let_go` does.
        seed: of what is replayed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        phases: Sequence[Phase],
        objective: Objective = cross_entropy,
        *,
        cycles: int = 1,
        rows: int = 128,
        let_go: Callable[[], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        if cycles < 1 or rows < 1:
            raise ValueError(f"cycles and rows must be at least 1, not {cycles} and {rows}")
        names = [phase.name for phase in phases]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"phases must be there and have different names, not {names}")
        self.model, self.optimizer, self.phases, self.objective = model, optimizer, list(phases), objective
        self.cycles, self.rows, self.let_go, self.seed = cycles, rows, let_go, seed
        self.steps = 0  # that are done
        self._sums = {name: [0.0] * cycles for name in names}
        self._released: list[Tensor] = []

    @property
    def length(self) -> int:
        """Steps of the whole night."""
        return self.cycles * sum(phase.steps for phase in self.phases)

    def run(self, advance: Advance = silent, *, until: int | None = None) -> Slept:
        """Sleeps from where it is to the end.

        Args:
            advance: told how far the night has come.
            until: the number of steps at which to stop; None is the whole night. Call `run` again to go on.
        """
        started, first = time.monotonic(), self.steps
        while self.steps < min(self.length, self.length if until is None else until):
            cycle, phase, last = self._now()
            loss = self._step(phase)
            self._sums[phase.name][cycle] += loss
            self.steps += 1
            if last and self.let_go:
                self._released.append(self.let_go().cpu())
            if self.steps % 10 == 0 or self.steps == self.length:
                told = f"{phase.name}, step {self.steps:,} of {self.length:,}, loss {loss:.3f}"
                advance(self.steps / self.length, told)
        return Slept(
            self.steps - first,
            {phase.name: [one / phase.steps for one in self._sums[phase.name]] for phase in self.phases},
            torch.cat([torch.empty(0, dtype=torch.int64), *self._released]),
            time.monotonic() - started,
        )

    def _now(self) -> tuple[int, Phase, bool]:
        """The cycle, the phase, and whether the cycle ends with this step."""
        cycle, step = divmod(self.steps, self.length // self.cycles)
        for phase in self.phases:
            if step < phase.steps:
                return cycle, phase, phase is self.phases[-1] and step == phase.steps - 1
            step -= phase.steps
        raise AssertionError("a step of a cycle lies in one of its phases")

    def _step(self, phase: Phase) -> float:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.steps) % 2**63)
        rows = -(-self.rows // len(phase.sources))
        losses = []
        self.optimizer.zero_grad()
        for source in phase.sources:
            inputs, targets = (
                part.to(next(self.model.parameters()).device) for part in source(rows, generator)
            )
            losses.append(self.objective(self.model(inputs), targets))
        loss = torch.stack(losses).mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        """Where the night is. The network, the optimiser and the store are saved by their owners."""
        return {
            "steps": self.steps,
            "seed": self.seed,
            "length": self.length,
            "sums": {name: list(sums) for name, sums in self._sums.items()},
            "released": torch.cat([torch.empty(0, dtype=torch.int64), *self._released]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on there.

        Raises:
            ValueError: the state is of another schedule.
        """
        mine = {"seed": self.seed, "length": self.length, "phases": list(self._sums)}
        its = {"seed": state["seed"], "length": state["length"], "phases": list(state["sums"])}
        if its != mine:
            raise ValueError(f"the state is of another night: {its}, and this one is {mine}")
        self.steps, self._released = state["steps"], [state["released"].clone()]
        self._sums = {name: list(sums) for name, sums in state["sums"].items()}
