"""Learning without forgetting: the network before is the teacher of the network now."""

import copy
from collections.abc import Mapping
from typing import Any, TypeVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mnemos.consolidation.term import Batches, Term

Network = TypeVar("Network", bound=nn.Module)


def distillation(
    outputs: Float[Tensor, "rows classes"],
    taught: Float[Tensor, "rows classes"],
    temperature: float = 2.0,
) -> Float[Tensor, ""]:
    """T² · KL(teacher ‖ student) at temperature T, the mean over rows.

    Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network". T² keeps the gradient's
    size when T changes; the teacher's entropy, which has no gradient, is left out by no one here, so that
    a perfect student pays 0. A class that the teacher rules out, with -inf, is unlearned by the student.
    """
    students = (outputs / temperature).log_softmax(-1)
    teachers = (taught / temperature).softmax(-1)
    return temperature**2 * nn.functional.kl_div(students, teachers, reduction="batchmean")


@final
class Teacher:
    """The network as it was when the last context ended, and which of its outputs had been taught by then."""

    def __init__(self) -> None:
        self.network: nn.Module | None = None  # None before a context has ended
        self.taught = torch.zeros(0, dtype=torch.bool)  # outputs seen as targets so far
        self.known = self.taught  # the same, when the last context ended

    def observe(self, targets: Tensor) -> None:
        self.taught = seen(self.taught, targets)

    def end_context(self, model: nn.Module) -> None:
        """From now on this is what it knows."""
        self.network, self.known = frozen(model), self.taught

    def state_dict(self) -> dict[str, Any]:
        network = self.network.state_dict() if self.network else None
        return {"teacher": network, "taught": self.taught, "known": self.known}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        self.network = None
        if state["teacher"] is not None:
            self.network = frozen(model)
            self.network.load_state_dict(state["teacher"])
        self.taught, self.known = state["taught"].clone(), state["known"].clone()


@final
class LwF(Term):
    """The new inputs are answered as the network answered them when the last context ended.

    Li & Hoiem 2016, "Learning without Forgetting", eq. 2 to 4. Only outputs that were taught by then count:
    what a network says of a class that it never saw is noise. Which these are is seen from the targets, if
    they are classes; else all outputs count.

    Args:
        temperature: T, above 0; the paper's is 2.
    """

    name = "lwf"
    shares = True

    def __init__(self, temperature: float = 2.0) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        self.temperature = temperature
        self.teacher = Teacher()

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        if self.teacher.network is None:
            return None
        with torch.no_grad():
            taught = self.teacher.network(inputs)
        outputs = self.model(inputs)
        if len(self.teacher.known):
            known = self.teacher.known.nonzero().squeeze(1)
            outputs, taught = outputs[..., known], taught[..., known]
        return distillation(outputs, taught, self.temperature)

    def observe(self, inputs: Tensor, targets: Tensor) -> None:
        self.teacher.observe(targets)

    def end_context(self, batches: Batches) -> None:
        self.teacher.end_context(self.model)

    def state_dict(self) -> dict[str, Any]:
        return self.teacher.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.teacher.load_state_dict(state, self.model)


def frozen(model: Network) -> Network:
    """A copy that never learns."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def seen(before: Bool[Tensor, " before"], targets: Tensor) -> Bool[Tensor, " after"]:
    """Which outputs have been targets so far; none are if the targets are no classes."""
    if targets.is_floating_point() or targets.dtype == torch.bool or targets.dim() != 1 or not len(targets):
        return before
    least = max(len(before), int(targets.max()) + 1)
    after = torch.zeros(least, dtype=torch.bool)
    after[: len(before)] = before
    after[targets.cpu()] = True
    return after
