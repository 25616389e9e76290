"""Generative replay: what is learned again was never lived through, but is like it."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.optim import Adam, Optimizer

from mnemos.consolidation.distillation import Teacher, distillation, frozen
from mnemos.consolidation.episodes import classes_of
from mnemos.consolidation.generative_model import GenerativeModel
from mnemos.consolidation.term import Batches, Term


class Pseudorehearsal(Term):
    """What all terms share that replay what a model makes, answered as the network answered it before.

    Robins 1995, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal". When a context ends the network is
    copied, and so is what makes inputs; the copies make and answer until the next one ends. Only outputs that
    were targets by then answer, if the targets are classes.

    With hard labels the answer is a class, and is learned by the objective (Shin et al. 2017). With soft
    targets it is how likely each class is, at a temperature, and that no class is which came later (van de
    Ven & Tolias 2018).

    Args:
        rows: inputs that are made beside each batch.
        temperature: of soft targets, above 0; None gives hard labels, for targets that are classes.
        seed: of all that is drawn.
    """

    shares = True

    def __init__(self, rows: int = 128, temperature: float | None = 2.0, *, seed: int = 0) -> None:
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be above 0, or None, not {temperature}")
        self.rows, self.temperature, self.seed = rows, temperature, seed
        self.random = torch.Generator().manual_seed(seed)
        self.teacher = Teacher()
        self.previous: GenerativeModel | None = None

    @torch.no_grad()
    def replayed(self, inputs: Tensor) -> Shaped[Tensor, "rows ..."] | None:
        """New inputs like those before, on the device of a batch; None while there is no before."""
        return (
            None if self.previous is None else self.previous.sample(self.rows, self.random).to(inputs.device)
        )

    def lesson(self, inputs: Shaped[Tensor, "rows ..."]) -> Float[Tensor, ""]:
        """What the network loses where it answers otherwise than it did before."""
        assert self.teacher.network is not None
        with torch.no_grad():
            answers = self.teacher.network(inputs)
        outputs = self.model(inputs)
        taught, known = (one.to(inputs.device) for one in self._answering(outputs.shape[-1]))
        if self.temperature is None:
            classes = taught[known]
            return self.objective(outputs, classes[answers[:, classes].argmax(1)])
        answers = answers[:, taught].masked_fill(~known, -torch.inf)
        return distillation(outputs[:, taught], answers, self.temperature)

    def _answering(self, outputs: int) -> tuple[Int[Tensor, " taught"], Bool[Tensor, " taught"]]:
        """The outputs that have been targets by now, and which of them had been when the teacher was made."""
        if not self.teacher.known.any():  # no classes
            return torch.arange(outputs), torch.ones(outputs, dtype=torch.bool)
        known = torch.zeros_like(self.teacher.taught)
        known[: len(self.teacher.known)] = self.teacher.known
        taught = self.teacher.taught.nonzero().squeeze(1)
        return taught, known[taught]

    def observe(self, inputs: Tensor, targets: Tensor) -> None:
        """Notes the classes.

        Raises:
            ValueError: hard labels are asked for, and the targets are no classes; nothing has changed.
        """
        if self.temperature is None and classes_of(targets) is None:
            raise ValueError(
                f"hard labels (temperature None) need classes for targets: integers of shape (rows,), "
                f"not {targets.dtype} of shape {tuple(targets.shape)}"
            )
        self.teacher.observe(targets)

    def end_context(self, batches: Batches) -> None:
        self.teacher.end_context(self.model)

    def state_dict(self) -> dict[str, Any]:
        return self.teacher.state_dict() | {"random": self.random.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teacher.load_state_dict(state, self.model)
        self.random.set_state(state["random"])


@final
class GenerativeReplay(Pseudorehearsal):
    """A generator learns what the inputs look like, beside the network, and makes those of the past.

    Shin et al. 2017, "Continual Learning with Deep Generative Replay", with hard labels; van de Ven & Tolias
    2018, "Generative replay with feedback connections", with distillation. The generator learns each batch
    when it is observed, together with what the generator before has made, so that it does not forget either:
    share · loss(new) + (1 − share) · loss(replayed), with the share of the consolidator.

    Args:
        generator: what learns to make inputs.
        optimizer: of the generator; None is Adam at its defaults.

    Raises:
        ValueError: the optimiser moves none of the generator's weights.
    """

    name = "generative replay"

    def __init__(
        self,
        generator: GenerativeModel,
        optimizer: Optimizer | None = None,
        *,
        rows: int = 128,
        temperature: float | None = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__(rows, temperature, seed=seed)
        self.generator, self.optimizer = generator, optimizer or Adam(generator.parameters())
        moved = {id(one) for group in self.optimizer.param_groups for one in group["params"]}
        if not moved & {id(one) for one in generator.parameters()}:
            raise ValueError("the optimizer must move weights of the generator; it has none of them")
        self._latest: Tensor | None = None  # what the network has just learned from

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        self._latest = self.replayed(inputs)
        return None if self._latest is None else self.lesson(self._latest)

    def observe(self, inputs: Tensor, targets: Tensor) -> None:
        super().observe(inputs, targets)
        replayed = self.replayed(inputs) if self._latest is None else self._latest
        self._latest = None
        with torch.enable_grad():
            loss = self.generator.loss(inputs, self.random)
            if replayed is not None:
                old = self.generator.loss(replayed, self.random)
                loss = self.new_share * loss + (1 - self.new_share) * old
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def end_context(self, batches: Batches) -> None:
        super().end_context(batches)
        self.previous, self._latest = frozen(self.generator), None

    def state_dict(self) -> dict[str, Any]:
        """To be taken after `observe`: what was made for a step that is not yet made is not in it."""
        own = {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "previous": None if self.previous is None else self.previous.state_dict(),
        }
        return super().state_dict() | deepcopy(own)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))
        self.previous = None
        if state["previous"] is not None:
            self.previous = frozen(self.generator)
            self.previous.load_state_dict(state["previous"])
        self._latest = None
