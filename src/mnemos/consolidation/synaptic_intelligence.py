"""Synaptic intelligence."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from mnemos.consolidation.quadratic import QuadraticPenalty
from mnemos.consolidation.term import Batches, Objective, trained


@final
class SI(QuadraticPenalty):
    """Holds weights by how much of the loss's fall each one made, on the way.

    Zenke, Poole & Ganguli 2017, "Continual Learning Through Synaptic Intelligence", eq. 3 to 5:

        ω_i = − Σ_steps g_i Δθ_i,  Ω_i = Σ_contexts ω_i / ((Δ_context θ_i)² + ξ),  c · Σ_i Ω_i (θ_i − θ*_i)²

    It has to see every step, so the consolidator must be attached to the optimiser; the gradients g are
    those of the loss, before any penalty, as in the paper. A negative sum ω, of a weight that only got in
    the way, counts as 0: it would make the penalty reward moving away.

    Args:
        strength: c; the paper's is 0.1 to 1.
        damping: ξ above 0, which bounds Ω where a weight ended where it began.
    """

    name = "si"
    needs_steps = True

    def __init__(self, strength: float, damping: float = 0.1) -> None:
        super().__init__(2 * strength)
        if not damping > 0:
            raise ValueError(f"damping must be above 0, not {damping}")
        self.damping = damping
        self._gradients: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}

    @torch.no_grad()
    def begin(self, model: torch.nn.Module, objective: Objective) -> None:
        super().begin(model, objective)
        self._start()

    def _start(self) -> None:
        weights = trained(self.model)
        self.path = {name: torch.zeros_like(one) for name, one in weights.items()}  # ω
        self.start = {name: one.detach().clone() for name, one in weights.items()}

    @torch.no_grad()
    def before_step(self) -> None:
        moved = {name: one for name, one in trained(self.model).items() if one.grad is not None}
        self._gradients = {name: one.grad.clone() for name, one in moved.items() if one.grad is not None}
        self._before = {name: one.clone() for name, one in moved.items()}
        super().before_step()

    @torch.no_grad()
    def after_step(self) -> None:
        weights = trained(self.model)
        for name, gradient in self._gradients.items():
            self.path[name].addcmul_(gradient, weights[name] - self._before[name], value=-1)
        self._gradients, self._before = {}, {}

    @torch.no_grad()
    def end_context(self, batches: Batches) -> None:
        weights = trained(self.model)
        gone = {name: (one - self.start[name]).square() for name, one in weights.items()}
        found = {name: path.clamp(min=0) / (gone[name] + self.damping) for name, path in self.path.items()}
        self.hold(found, keep=1.0)
        self._start()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"path": dict(self.path), "start": dict(self.start)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.path = {name: tensor.clone() for name, tensor in state["path"].items()}
        self.start = {name: tensor.clone() for name, tensor in state["start"].items()}
