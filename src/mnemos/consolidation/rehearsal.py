"""Experience replay: what was lived through is learned again, beside what is new."""

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnemos.consolidation.episodes import Episodes
from mnemos.consolidation.priorities import Prioritised
from mnemos.consolidation.selection import Selection
from mnemos.consolidation.term import Batches, Objective, Term, evaluated


def cross_entropies(outputs: Tensor, targets: Tensor) -> Float[Tensor, " rows"]:
    """Of each row, in nats."""
    return cross_entropy(outputs, targets, reduction="none")


class Rehearsal(Term):
    """What all terms share that keep experiences in a fast store.

    Args:
        episodes: the fast store.
        rows: experiences that are replayed beside each batch.
        selection: which; None is uniform.
        online: whether every batch is encoded when it is observed; else what `end_context` is given is
            encoded when it ends, so that a context replays only those before it.
    """

    def __init__(
        self, episodes: Episodes, rows: int = 128, selection: Selection | None = None, *, online: bool = True
    ) -> None:
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
        self.episodes, self.rows, self.selection, self.online = episodes, rows, selection, online

    def observe(self, inputs: Tensor, targets: Tensor) -> None:
        if self.online:
            self.encode(inputs, targets)

    def end_context(self, batches: Batches) -> None:
        if not self.online:
            for inputs, targets in batches:
                self.encode(inputs, targets)

    def encode(self, inputs: Tensor, targets: Tensor) -> None:
        """Writes a batch to the fast store."""
        self.episodes.write(inputs, targets)

    def state_dict(self) -> dict[str, Any]:
        return self.episodes.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.episodes.load_state_dict(state)


@final
class Replay(Rehearsal):
    """Experiences are learned again by the loss by which they were learned.

    Robins 1995, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal"; Rolnick et al. 2019, "Experience
    Replay for Continual Learning".
    """

    name = "replay"
    shares = True

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        if not len(self.episodes):
            return None
        batch = self.episodes.sample(self.rows, self.selection)
        return self.objective(self.model(batch.inputs.to(inputs.device)), batch.targets.to(inputs.device))


@final
class PrioritisedReplay(Rehearsal):
    """Experiences come back the more often, the worse they were answered last.

    Schaul et al. 2016, "Prioritized Experience Replay", algorithm 1, with the loss of an experience for its
    surprise: losses are weighted by importance, so that with the correction 1 it is `Replay` in the mean.

    Args:
        priorities: of these episodes; None makes them as the paper has them.
        correction: β, 0 to 1; may be changed meanwhile, as the paper does from 0.4 to 1.
        losses: outputs and targets to the loss of each row, 0 or more, whose mean the objective is.
    """

    name = "prioritised replay"
    shares = True

    def __init__(
        self,
        episodes: Episodes,
        rows: int = 128,
        priorities: Prioritised | None = None,
        *,
        online: bool = True,
        correction: float = 0.4,
        losses: Objective = cross_entropies,
    ) -> None:
        super().__init__(episodes, rows, online=online)
        if not 0 <= correction <= 1:
            raise ValueError(f"correction must be 0 to 1, not {correction}")
        self.priorities = priorities or Prioritised()
        self.correction, self.losses = correction, losses

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        if not len(self.episodes):
            return None
        batch = self.episodes.sample(self.rows, self.priorities)
        outputs = self.model(batch.inputs.to(inputs.device))
        losses = self.losses(outputs, batch.targets.to(inputs.device))
        weights = self.priorities.corrections(batch.ids, self.correction).to(losses)
        self.priorities.update(batch.ids, losses)
        return (weights * losses).mean()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"priorities": self.priorities.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.priorities.load_state_dict(state["priorities"])


@final
class DarkReplay(Rehearsal):
    """Experiences are answered as the network answered them at the time: DER and DER++.

    Buzzega et al. 2020, "Dark Experience for General Continual Learning", eq. 6:
    α · E ‖z − f(x)‖² over one sample, and β times the objective over another. Logits z are those of the
    network when the batch was observed.

    Args:
        logits: α, 0 or more.
        again: β, 0 or more; 0 is DER.
    """

    name = "dark replay"

    def __init__(
        self,
        episodes: Episodes,
        rows: int = 128,
        selection: Selection | None = None,
        *,
        online: bool = True,
        logits: float = 0.5,
        again: float = 0.5,
    ) -> None:
        super().__init__(episodes, rows, selection, online=online)
        for name, value in (("logits", logits), ("again", again)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, not {value}")
        self.logits, self.again = logits, again

    @torch.no_grad()
    def encode(self, inputs: Tensor, targets: Tensor) -> None:
        with evaluated(self.model):
            outputs = self.model(inputs)
        self.episodes.write(inputs, targets, outputs=outputs)

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        if not len(self.episodes):
            return None
        batch = self.episodes.sample(self.rows, self.selection)
        given = batch.others["outputs"].to(inputs.device)
        value = self.logits * (self.model(batch.inputs.to(inputs.device)) - given).square().mean()
        if self.again:
            batch = self.episodes.sample(self.rows, self.selection)
            outputs = self.model(batch.inputs.to(inputs.device))
            value = value + self.again * self.objective(outputs, batch.targets.to(inputs.device))
        return value


@final
class AGEM(Rehearsal):
    """A step may not make the loss of replayed experiences larger: averaged gradient episodic memory.

    Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", eq. 11: where g · g_ref < 0, with the
    gradient g_ref of the objective over a sample, g ← g − (g · g_ref / g_ref · g_ref) g_ref. It acts on
    gradients, so the consolidator must be attached to the optimiser.
    """

    name = "a-gem"
    needs_steps = True

    def before_step(self) -> None:
        weights = [one for one in self.model.parameters() if one.grad is not None]
        if not weights or not len(self.episodes):
            return
        batch = self.episodes.sample(self.rows, self.selection)
        device = weights[0].device
        with torch.enable_grad():
            loss = self.objective(self.model(batch.inputs.to(device)), batch.targets.to(device))
            against = torch.autograd.grad(loss, weights, allow_unused=True)
        pairs = [(one.grad, ref) for one, ref in zip(weights, against, strict=True) if ref is not None]
        dot = sum((gradient * ref).sum() for gradient, ref in pairs if gradient is not None)
        length = sum(ref.square().sum() for _, ref in pairs)
        if not dot < 0:
            return
        with torch.no_grad():
            for gradient, ref in pairs:
                assert gradient is not None
                gradient.sub_(ref, alpha=float(dot / length))
