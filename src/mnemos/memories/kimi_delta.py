"""Kimi delta attention: the gated delta rule with a decay for every channel of the keys."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.fast_weights import FastWeights, FeatureMap
from mnemos.ops.forgetting import log_decay_of, starting_log_rates, starting_steps


@final
class KimiDelta(FastWeights):
    """The delta rule in a matrix whose columns each forget at a rate of their own.

    Kimi Team 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture", eq. 1:
    S_t = S_{t-1} Diag(α_t) (I - β_t k_t ⊗ k_t) + β_t v_t ⊗ k_t, S being (width, keys), with an α_t for each
    channel of the keys. With all channels alike it is `GatedDelta`. The decays come from a map of low rank,
    the head's value size, as in the paper, with Mamba-2's softplus and rates.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent matrices.
        key_size: width of a head's keys: about how many associations it holds.
        value_size: width of a head's values.
        feature_map: `unit_length()`, which None means, or another one.
        chunk_size: steps computed together, a power of two. A matter of speed only.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int = 64,
        value_size: int = 64,
        feature_map: FeatureMap | None = None,
        chunk_size: int = 32,
    ) -> None:
        super().__init__(input_size, output_size, heads, key_size, value_size, feature_map, chunk_size)
        channels = heads * key_size * self.addressing.growth
        self.strength = nn.Linear(input_size, heads)  # β before the sigmoid
        self.to_step = nn.Linear(input_size, value_size, bias=False)
        self.step = nn.Linear(value_size, channels)
        self.step.bias = nn.Parameter(starting_steps(channels))
        self.log_rate = nn.Parameter(starting_log_rates(heads))

    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """β in (0, 1) for each head, and log α below 0 for each channel of its keys."""
        steps = self.step(self.to_step(inputs)).unflatten(-1, (self.heads, -1))
        return {
            "strength": self.strength(inputs).sigmoid(),
            "log_decay": log_decay_of(steps, self.log_rate.unsqueeze(-1)),
        }
