"""What keeps a network from forgetting while it learns on, around any training loop."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from mnemos.consolidation.term import Batches, Objective, Term


@final
class Consolidator:
    """The terms that hold a network to what it knew, at the right moments of a loop that remains the
    caller's.

        consolidator = Consolidator(network, [Replay(Episodes(store, capacity=1000))])
        consolidator.attach(optimizer)  # asked for by terms that see every step, and cheaper for penalties
        for inputs, targets in batches:
            loss = consolidator.loss(cross_entropy(network(inputs), targets), inputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            consolidator.observe(inputs, targets)
        consolidator.end_context(batches)

    Args:
        model: the slow network, of inputs to outputs.
        terms: no two of one name.
        objective: outputs and targets to the mean loss of a batch; by it experiences are learned again.
        new_share: of the loss of what is new, beside terms that replay, 0 to 1; None is 1 / contexts, this
            one included, so that every context counts alike (van de Ven & Tolias 2018). Without contexts
            give a share, for instance 0.5.
    """

    def __init__(
        self,
        model: nn.Module,
        terms: Sequence[Term],
        objective: Objective = cross_entropy,
        *,
        new_share: float | None = None,
    ) -> None:
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ValueError(f"terms must have different names, not {names}")
        if new_share is not None and not 0 <= new_share <= 1:
            raise ValueError(f"new_share must be 0 to 1, or None, not {new_share}")
        self.model, self.terms, self.objective, self.new_share = model, list(terms), objective, new_share
        self.contexts = 0  # that have ended
        self._handles: list[Any] = []
        self._told = False  # by the caller
        for term in self.terms:
            term.begin(model, objective)

    @property
    def attached(self) -> bool:
        """Whether every step is seen."""
        return self._told or bool(self._handles)

    @property
    def share(self) -> float:
        """Of the loss of what is new, where something is replayed beside it."""
        return 1 / (self.contexts + 1) if self.new_share is None else self.new_share

    def loss(self, new: Float[Tensor, ""], inputs: Tensor) -> Float[Tensor, ""]:
        """The loss to descend: share · new + (1 − share) · the mean of what replays + what is held on top.

        Args:
            new: the loss of the batch.
            inputs: of the batch.

        Raises:
            RuntimeError: a term has to see every step, and the consolidator is not attached.
        """
        self._check_attached()
        found = [(term, term.loss(inputs, attached=self.attached)) for term in self.terms]
        replayed = [value for term, value in found if term.shares and value is not None]
        on_top = [value for term, value in found if not term.shares and value is not None]
        total = new
        if replayed:
            total = self.share * new + (1 - self.share) * torch.stack(replayed).mean()
        return torch.stack([total, *on_top]).sum()

    def attach(self, optimizer: Optimizer | None) -> None:
        """From now on every step of the optimiser is seen, and penalties are added to the gradients before
        it.

        That is after any clipping of the gradients, and it needs them unscaled. A second optimiser replaces
        the first.

        Args:
            optimizer: None for a loop that calls `before_step` and `after_step` itself. It has to be so where
                the optimiser is given a closure, as Lightning does: what makes the gradients is then a part
                of the step (`mnemos.training.Consolidation` is for Lightning).

        Raises:
            ValueError: the optimiser moves none of the network's weights.
        """
        if optimizer is None:
            self.detach()
            self._told = True
            return
        moved = {id(one) for group in optimizer.param_groups for one in group["params"]}
        if not moved & {id(one) for one in self.model.parameters()}:
            raise ValueError(
                "the optimizer must move weights of the consolidator's model; it has none of them"
            )
        self.detach()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(lambda *_: self.after_step()),
        ]

    def detach(self) -> None:
        """The optimiser is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._told = [], False

    def before_step(self) -> None:
        """Between the backward pass and the optimiser's step; see `attach`."""
        for term in self.terms:
            term.before_step()

    def after_step(self) -> None:
        """After the optimiser's step; see `attach`."""
        for term in self.terms:
            term.after_step()

    def observe(self, inputs: Tensor, targets: Tensor) -> None:
        """After a step: what it was made from is remembered."""
        for term in self.terms:
            term.new_share = self.share
            term.observe(inputs.detach(), targets.detach())

    def end_context(self, batches: Batches = ()) -> None:
        """A context ends.

        Args:
            batches: of the context, inputs and targets; a loader, or a list. Terms that measure the network
                walk it once each, so an iterator that can be walked only once does for one of them.
        """
        self._check_attached()
        for term in self.terms:
            term.end_context(batches)
        self.contexts += 1

    def state_dict(self) -> dict[str, Any]:
        """What the terms know; the network, the optimiser and the store are saved by their owners."""
        return {"contexts": self.contexts, "terms": {term.name: term.state_dict() for term in self.terms}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where another process ended; the network must have been loaded before.

        Raises:
            ValueError: the state is of other terms.
        """
        if state["terms"].keys() != {term.name for term in self.terms}:
            raise ValueError(
                f"the state is of the terms {sorted(state['terms'])}, "
                f"and these are {sorted(term.name for term in self.terms)}"
            )
        for term in self.terms:
            term.load_state_dict(state["terms"][term.name])
        self.contexts = state["contexts"]

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if any(callable(one) for one in (*args[1:], options.get("closure"))):
            raise RuntimeError(
                "the optimizer was given a closure, so there are no gradients yet when its step begins: "
                "call attach(None), and before_step and after_step where they belong"
            )
        self.before_step()

    def _check_attached(self) -> None:
        if not self.attached and (blind := [term.name for term in self.terms if term.needs_steps]):
            raise RuntimeError(f"{', '.join(blind)} must see every step: call attach(optimizer) first")
