"""Gated DeltaNet-2: what is erased and what is written are set apart."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.fast_weights import FastWeights
from mnemos.ops.forgetting import log_decay_of, starting_log_rates, starting_steps


@final
class GatedDelta2(FastWeights):
    """The gated delta rule with a gate for every channel of what it erases, writes and keeps.

    Hatamizadeh, Choi & Kautz 2026, "Gated DeltaNet-2: Decoupling Erase and Write in Linear Attention":
    S_t = S_{t-1} Diag(α_t) (I - (b_t ⊙ k_t) ⊗ k_t) + (w_t ⊙ v_t) ⊗ k_t, S being (width, keys). The erase gate
    b is over the channels of the keys: which of them the old answer is read from. The write gate w is over
    the channels of the values. With both gates one number it is `KimiDelta`, and with one decay `GatedDelta`.

    All three gates are full linear maps here; the paper's decay is of low rank. Arguments are those of
    `FastWeights`.
    """

    def add_gates(self, channels: int) -> None:
        self.erase = nn.Linear(self.input_size, channels)  # b before the sigmoid
        self.write_gate = nn.Linear(self.input_size, self.heads * self.value_size)  # w before the sigmoid
        self.step = nn.Linear(self.input_size, channels)
        self.step.bias = nn.Parameter(starting_steps(channels))
        self.log_rate = nn.Parameter(starting_log_rates(self.heads))

    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """b and w in (0, 1), and log α below 0, for each channel of each head."""
        erase, committed, steps = (
            self.split(layer(inputs)) for layer in (self.erase, self.write_gate, self.step)
        )
        return {
            "erased": erase.sigmoid(),
            "committed": committed.sigmoid(),
            "log_decay": log_decay_of(steps, self.log_rate.unsqueeze(-1)),
        }
