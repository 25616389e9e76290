"""Gated DeltaNet-2: what is erased and what is written are set apart."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.fast_weights import FastWeights, FeatureMap
from mnemos.ops.forgetting import log_decay_of, starting_log_rates, starting_steps


@final
class GatedDelta2(FastWeights):
    """The gated delta rule with a gate for every channel of what it erases, writes and keeps.

    Hatamizadeh, Choi & Kautz 2026, "Gated DeltaNet-2: Decoupling Erase and Write in Linear Attention":
    S_t = S_{t-1} Diag(α_t) (I - (b_t ⊙ k_t) ⊗ k_t) + (w_t ⊙ v_t) ⊗ k_t, S being (width, keys). The erase gate
    b is over the channels of the keys: which of them the old answer is read from. The write gate w is over
    the channels of the values. With both gates one number it is `KimiDelta`, and with one decay `GatedDelta`.

    All three gates are full linear maps here; the paper's decay is of low rank.

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
        self.erase = nn.Linear(input_size, channels)  # b before the sigmoid
        self.write_gate = nn.Linear(input_size, heads * value_size)  # w before the sigmoid
        self.step = nn.Linear(input_size, channels)
        self.step.bias = nn.Parameter(starting_steps(channels))
        self.log_rate = nn.Parameter(starting_log_rates(heads))

    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """b and w in (0, 1), and log α below 0, for each channel of each head."""
        erase, committed, steps = (
            layer(inputs).unflatten(-1, (self.heads, -1))
            for layer in (self.erase, self.write_gate, self.step)
        )
        return {
            "erased": erase.sigmoid(),
            "committed": committed.sigmoid(),
            "log_decay": log_decay_of(steps, self.log_rate.unsqueeze(-1)),
        }
