"""Dense associative memory: patterns of +1 and -1 under a steep energy. Krotov & Hopfield 2016."""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.memories.base import AddressableMemory, Reading, check_sizes
from mnemos.ops import ring
from mnemos.ops.hopfield import Separation, dense_asynchronous, exponential, signs


class DenseHopfieldState(NamedTuple):
    """The last patterns, in a ring: the n-th lies in slot n modulo their number."""

    patterns: Float[Tensor, "batch slots keys"]  # ξ, of +1 and -1; 0 where nothing is stored
    clock: Int[Tensor, " batch"]  # patterns written so far


@final
class DenseHopfield(AddressableMemory):
    """Finds a whole pattern of +1 and -1 again from a part of it, among many more than there are units.

    Krotov & Hopfield 2016, "Dense Associative Memory for Pattern Recognition"; with `exponential` Demircigil
    et al. 2017. Unit after unit takes the sign that makes the energy lower, -Σ F(ξ·s) over the patterns. The
    steeper the separation F, the less the patterns disturb each other.

    As in `Hopfield` a pattern is its own key, `write` stores the signs of the values, and nothing has a
    gradient. The patterns themselves are kept, in a bounded number of slots. An empty memory answers zeros.

    Args:
        input_size: units, which is the width of a pattern.
        slots: patterns that are kept, the last ones.
        separation: of `mnemos.ops.hopfield`: `exponential`, or `functools.partial(polynomial, degree=3)`.
        sweeps: updates of every unit in a read, fewer once nothing changes. Compiled code does them all.
    """

    def __init__(
        self, input_size: int, slots: int, separation: Separation = exponential, *, sweeps: int = 20
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, slots=slots, sweeps=sweeps)
        self.input_size = self.output_size = input_size
        self.slots, self.separation, self.sweeps = slots, separation, sweeps

    def initial_state(self, batch_size: int) -> DenseHopfieldState:
        """Nothing in any slot."""
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        return DenseHopfieldState(
            self._origin.new_zeros(batch_size, self.slots, self.input_size, dtype=dtype),
            self._origin.new_zeros(batch_size, dtype=torch.int64),
        )

    def write(
        self,
        state: DenseHopfieldState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> DenseHopfieldState:
        """Puts the signs of each value into a slot of its own, in place of the oldest.

        Args:
            keys: of the values' shape, and not looked at: any part of a pattern will find it.
            strength: of 0 a pattern is not written; how far above 0 makes no difference.
            mask: false where a pattern is not written.
        """
        self.check_given(state, values=(values, self.input_size))
        real = values.new_ones(values.shape[:2], dtype=torch.bool) if mask is None else mask
        real = real if strength is None else real & (strength > 0)
        turn = ring.turn(state.clock, self.slots, real)
        return DenseHopfieldState(ring.after(state.patterns, signs(values), turn), turn.clock)

    def read(self, state: DenseHopfieldState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """What the units settle to from the signs of the query.

        The weights are the overlaps of that with the patterns, -1 to 1: how it can be told from a failure.
        """
        self.check_given(state, queries=(queries, self.input_size))
        stored = ring.filled(state.clock, self.slots).unsqueeze(1)
        patterns = state.patterns.detach()
        with torch.autocast(queries.device.type, enabled=False):
            settled = dense_asynchronous(patterns, signs(queries).to(patterns), self.separation, self.sweeps)
            overlaps = settled @ patterns.mT / self.input_size
        values = settled.masked_fill(~stored.any(-1, keepdim=True), 0).to(queries)
        slots = torch.arange(self.slots, device=stored.device).expand(overlaps.shape)
        return Reading(values, overlaps, slots.masked_fill(~stored, -1))

    def energy(
        self, state: DenseHopfieldState, patterns: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time"]:
        """A rising function of -Σ F(ξ·s) of the signs of the patterns, in the separation's own scale."""
        self.check_given(state, patterns=(patterns, self.input_size))
        with torch.autocast(patterns.device.type, enabled=False):
            return self.separation(signs(patterns).to(state.patterns) @ state.patterns.mT, self.input_size)
