"""Elastic weight consolidation."""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from mnemos.consolidation.importance import Fisher, fisher
from mnemos.consolidation.quadratic import QuadraticPenalty
from mnemos.consolidation.term import Batches


@final
class EWC(QuadraticPenalty):
    """Holds weights by the Fisher information that they carried at the end of each context.

    Kirkpatrick et al. 2017, eq. 3: λ / 2 · Σ_i F_i (θ_i − θ*_i)², one such sum for every context that ended;
    with `keep`, the online form of Schwarz et al. 2018, "Progress & Compress", eq. 9: F ← γ F + F_k about the
    latest weights.

    It does not learn to tell classes of different contexts apart, whatever its strength: nothing in it ever
    compares them.

    Args:
        strength: λ. As published for split MNIST: 1e5 where the task is told, 1e9 to 1e10 where it is not.
        kind: of Fisher information; see `fisher`.
        keep: γ in 0 to 1; None for a penalty of every context.
        outputs: what is made of the logits before the Fisher information is measured.
        seed: of the answers that are drawn, if `kind` is "sampled".
    """

    name = "ewc"

    def __init__(
        self,
        strength: float,
        kind: Fisher = "exact",
        keep: float | None = None,
        outputs: Callable[[Tensor], Tensor] = lambda outputs: outputs,
        seed: int = 0,
    ) -> None:
        super().__init__(strength)
        if keep is not None and not 0 <= keep <= 1:
            raise ValueError(f"keep must be 0 to 1, or None, not {keep}")
        self.kind, self.keep, self.outputs = kind, keep, outputs
        self.generator = torch.Generator().manual_seed(seed)

    def end_context(self, batches: Batches) -> None:
        found = fisher(self.model, batches, self.kind, generator=self.generator, outputs=self.outputs)
        self.hold(found, self.keep)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])
