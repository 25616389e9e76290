"""The gated delta rule as a layer: Gated DeltaNet."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.fast_weights import FastWeights
from mnemos.ops.forgetting import log_decay_of, starting_log_rates, starting_steps


@final
class GatedDelta(FastWeights):
    """The delta rule in a matrix that also forgets, all of it at one rate a head that the input sets.

    Yang, Kautz & Hatamizadeh 2025, "Gated Delta Networks: Improving Mamba2 with Delta Rule", eq. 10:
    S_t = α_t S_{t-1} (I - β_t k_t ⊗ k_t) + β_t v_t ⊗ k_t. Forgetting clears what is over at once, where the
    delta rule alone must overwrite it key by key; it also costs what should have been kept.

    The decay is Mamba-2's (Dao & Gu 2024): α = exp(-a softplus(W x + b)), with a drawn from 1 to 16 and b
    such that the softplus begins between .001 and .1. All else is as in `DeltaRule`,
    and the arguments are those of `FastWeights`.
    """

    def add_gates(self, channels: int) -> None:
        self.strength = nn.Linear(self.input_size, self.heads)  # β before the sigmoid
        self.step = nn.Linear(self.input_size, self.heads)
        self.step.bias = nn.Parameter(starting_steps(self.heads))
        self.log_rate = nn.Parameter(starting_log_rates(self.heads))  # log a

    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """β in (0, 1) and log α below 0, for each head."""
        return {
            "strength": self.strength(inputs).sigmoid(),
            "log_decay": log_decay_of(self.step(inputs), self.log_rate).unsqueeze(-1),
        }
