"""Memory aware synapses."""

from typing import final

from mnemos.consolidation.importance import sensitivity
from mnemos.consolidation.quadratic import QuadraticPenalty
from mnemos.consolidation.term import Batches


@final
class MAS(QuadraticPenalty):
    """Holds weights by how far each would move the outputs; no target is needed.

    Aljundi et al. 2018, "Memory Aware Synapses", eq. 2 to 4: λ · Σ_i Ω_i (θ_i − θ*_i)², Ω summed over the
    contexts, about the latest weights.

    Args:
        strength: λ; the paper's is 1.
    """

    name = "mas"

    def __init__(self, strength: float) -> None:
        super().__init__(2 * strength)

    def end_context(self, batches: Batches) -> None:
        self.hold(sensitivity(self.model, batches), keep=1.0)
