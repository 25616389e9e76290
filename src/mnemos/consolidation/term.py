"""What every way of holding a network to what it knew is."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

Objective = Callable[[Tensor, Tensor], Tensor]  # outputs and targets to the mean loss of a batch
Batches = Iterable[tuple[Tensor, Tensor]]  # inputs and targets


class Term:
    """One part of a `Consolidator`, which calls it at the right moments; this one does nothing at any.

    A term acts in one of two ways, or both: by a loss that is added to the loss of what is being learned, or
    on the gradients, between the backward pass and the optimiser's step.

    `name` is the term's in `Consolidator.state_dict`. `shares` says whether its loss stands beside the loss
    of what is being learned, as replay does, so that the two are averaged (see `Consolidator`), or on top
    of it, as a penalty does. `needs_steps` says whether it has to see every step of the optimiser.
    `new_share` is what the loss of what is being learned counts in that average, 0 to 1; the consolidator
    tells it before `observe`, for terms that teach something else beside the network.
    """

    name: str
    shares = False
    needs_steps = False
    new_share = 1.0

    def begin(self, model: nn.Module, objective: Objective) -> None:
        """Told once, before anything else: the slow network, and what it is taught by."""
        self.model, self.objective = model, objective

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        """What is to be made small beside the loss of a batch; None where there is nothing yet.

        Args:
            inputs: of the batch that is being learned.
            attached: whether `before_step` is called, so that a penalty can be left to it.
        """
        return None

    def before_step(self) -> None:
        """Every `.grad` is there; the optimiser has not used it yet."""

    def after_step(self) -> None:
        """The optimiser has moved the weights."""

    def observe(self, inputs: Tensor, targets: Tensor) -> None:
        """A batch was learned from; this is the moment to remember it."""

    def end_context(self, batches: Batches) -> None:
        """A context ends: a task, a domain, a set of classes, or an hour.

        Args:
            batches: what is to be known of it, for terms that measure the network; may be walked again.
        """

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings that make the term go on bit for bit."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state_dict`.

        Raises:
            ValueError: it is of another network or another setting.
        """


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


@contextlib.contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """As in `eval()`, module by module, and then as it was."""
    were = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in were:
            module.training = training
