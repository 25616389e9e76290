"""Kimi delta attention: the gated delta rule with a decay for every channel of the keys."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.fast_weights import FastWeights
from mnemos.ops.forgetting import log_decay_of, starting_log_rates, starting_steps


@final
class KimiDelta(FastWeights):
    """The delta rule in a matrix whose columns each forget at a rate of their own.

    Kimi Team 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture", eq. 1:
    S_t = S_{t-1} Diag(α_t) (I - β_t k_t ⊗ k_t) + β_t v_t ⊗ k_t, S being (width, keys), with an α_t for each
    channel of the keys. With all channels alike it is `GatedDelta`. The decays come from a map of low rank,
    the head's value size, as in the paper, with Mamba-2's softplus and rates. Arguments are those of
    `FastWeights`.
    """

    def add_gates(self, channels: int) -> None:
        self.strength = nn.Linear(self.input_size, self.heads)  # β before the sigmoid
        self.to_step = nn.Linear(self.input_size, self.value_size, bias=False)
        self.step = nn.Linear(self.value_size, channels)
        self.step.bias = nn.Parameter(starting_steps(channels))
        self.log_rate = nn.Parameter(starting_log_rates(self.heads))

    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """β in (0, 1) for each head, and log α below 0 for each channel of its keys."""
        steps = self.split(self.step(self.to_step(inputs)))
        return {
            "strength": self.strength(inputs).sigmoid(),
            "log_decay": log_decay_of(steps, self.log_rate.unsqueeze(-1)),
        }
