"""Penalties that hold every weight to where it was, the harder the more it matters."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mnemos.consolidation.importance import Importance
from mnemos.consolidation.term import Term, trained


class QuadraticPenalty(Term):
    """strength / 2 · Σ_i F_i (θ_i − c_i)², with importances F and centres c that grow with every context.

    It needs no access to the loss: where the consolidator is attached to an optimiser, its gradient
    strength · F (θ − c) is added to `.grad` before the step, which gives the same weights and costs less.

    Args:
        strength: λ, 0 or more. How much it takes depends on the network and on F: try powers of ten.
    """

    def __init__(self, strength: float) -> None:
        if not strength >= 0:
            raise ValueError(f"strength must be 0 or more, not {strength}")
        self.strength = strength
        self.importance: Importance = {}  # F, by name of the weight; empty before the first context ends
        self.centre: dict[str, Tensor] = {}  # c

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        if attached or not self.importance:
            return None
        weights = trained(self.model)
        held = (
            (f * (weights[name] - self.centre[name]).square()).sum() for name, f in self.importance.items()
        )
        return self.strength / 2 * torch.stack(list(held)).sum()

    @torch.no_grad()
    def before_step(self) -> None:
        """Adds the gradient, to weights that have one: the optimiser leaves the others where they are."""
        for name, weight in trained(self.model).items():
            if weight.grad is not None and name in self.importance:
                weight.grad.addcmul_(self.importance[name], weight - self.centre[name], value=self.strength)

    @torch.no_grad()
    def hold(self, importance: Importance, keep: float | None) -> None:
        """Takes in what a context that ends here was found to matter.

        Args:
            keep: of the importance before, what is kept, and everything is held to where it is now; None
                keeps a penalty of its own for every context, whose sum is again one quadratic: F = Σ F_k
                about c = Σ F_k θ_k / F.
        """
        for name, weight in trained(self.model).items():
            new = importance[name]
            before = self.importance.get(name, torch.zeros_like(new))
            total = new + before * (1 if keep is None else keep)
            here = weight.detach().clone()
            if keep is None and name in self.centre:
                # From the centre before: Σ F_k θ_k − F θ would lose what is small beside the weights.
                share = torch.where(total > 0, new / total, 1)
                here = self.centre[name] + share * (here - self.centre[name])
            self.importance[name], self.centre[name] = total, here

    def state_dict(self) -> dict[str, Any]:
        return {"importance": dict(self.importance), "centre": dict(self.centre)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        weights = trained(self.model)
        for part in ("importance", "centre"):
            for name, tensor in state[part].items():
                if name not in weights or weights[name].shape != tensor.shape:
                    raise ValueError(f"{self.name}: {part} of {name!r} fits no weight of the network")
        self.importance = {name: tensor.clone() for name, tensor in state["importance"].items()}
        self.centre = {name: tensor.clone() for name, tensor in state["centre"].items()}

    @abstractmethod
    def end_context(self, batches: Any) -> None:
        """Measures what mattered, and holds it."""
