"""A network with continuous states whose update is attention: Ramsauer et al. 2021."""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.memories.base import AddressableMemory, Reading, check_sizes
from mnemos.ops import ring
from mnemos.ops.hopfield import association, continuous_energy, retrieve


class ModernHopfieldState(NamedTuple):
    """The last patterns, in a ring: the n-th lies in slot n modulo their number."""

    keys: Float[Tensor, "batch slots keys"]  # X
    values: Float[Tensor, "batch slots width"]
    clock: Int[Tensor, " batch"]  # pairs written so far


@final
class ModernHopfield(AddressableMemory):
    """Keeps the last patterns as they are, and finds one from a part of it by steps of attention.

    Ramsauer et al. 2021, "Hopfield Networks is All You Need". A read updates ξ ← X softmax(β Xᵀ ξ) `steps`
    times, the last time with the values; with one step it is `scaled_dot_product_attention`. There are no
    parameters: the inputs themselves are queries, keys and values. Layers with projections and with trained
    patterns are in `mnemos.models.hopfield`; for another policy of what to keep there is `KeyValue`.

    What is found depends on β times the distance of the patterns: one pattern if it is far from the others,
    the mean of its neighbourhood if it is not, the mean of all if β is small. An empty memory answers zeros.

    All steps of a stretch are read at once, each through a mask that shows it what it could have known.
    `naive` reads and writes step by step.

    Args:
        input_size: width of keys, values and queries.
        slots: patterns that are kept, the last ones.
        inverse_temperature: β; None is 1 / sqrt(input_size), as in attention.
        steps: updates in a read. Each costs the same.
    """

    def __init__(
        self, input_size: int, slots: int, inverse_temperature: float | None = None, steps: int = 1
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, slots=slots, steps=steps)
        if inverse_temperature is None:
            inverse_temperature = input_size**-0.5
        if not inverse_temperature > 0:
            raise ValueError(f"inverse_temperature must be above 0, not {inverse_temperature}")
        self.input_size = self.output_size = input_size
        self.slots, self.inverse_temperature, self.steps = slots, inverse_temperature, steps
        self.capacity = slots
        self.naive = False

    def initial_state(self, batch_size: int) -> ModernHopfieldState:
        """Nothing in any slot."""
        slots = self._origin.new_zeros(batch_size, self.slots, self.input_size)
        clock = self._origin.new_zeros(batch_size, dtype=torch.int64)
        return ModernHopfieldState(slots, slots.clone(), clock)

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: ModernHopfieldState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], ModernHopfieldState]:
        if self.naive:
            return super().forward(inputs, state, mask=mask, reset=reset)
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = inputs.masked_fill(~real.unsqueeze(-1), 0)  # padding may hold anything, NaN included
        length = max(32, self.slots)  # together, so that the work per step stays bounded
        outputs = []
        for steps in zip(*(x.split(length, 1) for x in (inputs, real, fresh)), strict=True):
            output, state = self._together(state, *steps)
            outputs.append(output)
        return torch.cat(outputs, dim=1).masked_fill(~real.unsqueeze(-1), 0), state

    def write(
        self,
        state: ModernHopfieldState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> ModernHopfieldState:
        """Puts each pair into a slot of its own, in place of the oldest.

        Args:
            strength: of 0 a pair is not written; how far above 0 makes no difference.
            mask: false where a pair is not written.
        """
        self.check_rows(state, keys.shape[0])
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        real = real if strength is None else real & (strength > 0)
        return _after(state, keys, values, ring.turn(state.clock, self.slots, real))

    def read(self, state: ModernHopfieldState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """The values, by their weights in the last update; zeros if nothing is stored."""
        self.check_rows(state, queries.shape[0])
        stored = ring.filled(state.clock, self.slots).unsqueeze(1)
        weights = association(queries, state.keys, self.inverse_temperature, self.steps, stored)
        slots = torch.arange(self.slots, device=stored.device).expand(weights.shape)
        return Reading(weights @ state.values.to(weights), weights, slots.masked_fill(~stored, -1))

    def energy(
        self, state: ModernHopfieldState, queries: Float[Tensor, "batch time keys"]
    ) -> Float[Tensor, "batch time"]:
        """What every update lowers: Ramsauer et al. 2021, equation (2)."""
        self.check_rows(state, queries.shape[0])
        stored = ring.filled(state.clock, self.slots).unsqueeze(1)
        return continuous_energy(queries, state.keys, self.inverse_temperature, stored)

    def _together(
        self, state: ModernHopfieldState, inputs: Tensor, real: Tensor, fresh: Tensor
    ) -> tuple[Tensor, ModernHopfieldState]:
        """Many steps: what each could have known lies in the slots and in the steps before it."""
        turn = ring.turn(state.clock, self.slots, real, fresh)
        keys, values = (torch.cat([old, inputs.to(old)], dim=1) for old in (state.keys, state.values))
        found = retrieve(
            inputs.to(keys), keys, values, self.inverse_temperature, self.steps, ring.visible(turn)
        )
        return found, _after(state, inputs, inputs, turn)


def _after(state: ModernHopfieldState, keys: Tensor, values: Tensor, turn: ring.Turn) -> ModernHopfieldState:
    return ModernHopfieldState(
        ring.after(state.keys, keys, turn), ring.after(state.values, values, turn), turn.clock
    )
