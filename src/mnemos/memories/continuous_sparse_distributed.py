"""Sparse distributed memory that a network can be trained through."""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mnemos.memories.base import Reading, check_sizes
from mnemos.memories.pairs import PairMemory
from mnemos.ops.top_k_counters import add_and_sum, add_and_sum_loop, top_k_activations


class ContinuousSparseDistributedState(NamedTuple):
    """What a `ContinuousSparseDistributed` remembers."""

    counters: Float[Tensor, "batch slots width"]  # C, never below float32


@final
class ContinuousSparseDistributed(PairMemory):
    """Sums of values at the few locations that are nearest to a key, with gradients through all of it.

    Kanerva's memory with real numbers and learned addresses: Bricken & Pehlevan 2021 and Bricken et al. 2023.
    The `top_k` locations of greatest cosine are active, each by how much nearer it is than the next one after
    them, scaled to length one together. Writing adds the value to their counters, reading sums them.
    Counters do not saturate, and nothing is decided by sign: how far a reading is from zero says how much of
    it was known. A key alone in memory answers exactly what was written; a key of zeros writes nothing.

    Departs from the papers: attention's division by the total weight is left out, since it makes the answer
    jump where a query leaves the last location that knows something; so what is written twice reads as twice
    as much. Weights that are not negative (Dale's principle) are left to who wants them.

    `forward` takes each input as key and value at once; with a `value_size` of its own, the input is the key
    and the value side by side. Around it, a network has its own projections.

    Args:
        key_size: width of keys and queries.
        value_size: width of values; None means `key_size`.
        locations: how many locations there are; their addresses are the memory's only parameters.
        top_k: how many of them are active at most; fewer than there are. Few keep memories apart, many
            generalise.
        chunk_size: steps computed together. A matter of speed only.
    """

    def __init__(
        self,
        key_size: int,
        value_size: int | None = None,
        *,
        locations: int,
        top_k: int,
        chunk_size: int = 64,
    ) -> None:
        super().__init__(key_size, value_size)
        check_sizes(top_k=top_k, chunk_size=chunk_size)
        if locations <= top_k:
            raise ValueError(f"locations must be more than top_k = {top_k}, not {locations}")
        self.locations, self.top_k, self.chunk_size = locations, top_k, chunk_size
        self.naive = False
        self.addresses = nn.Parameter(torch.randn(locations, key_size))

    def initial_state(self, batch_size: int) -> ContinuousSparseDistributedState:
        """Counters of zero, which answer zero."""
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        shape = (batch_size, self.locations, self.output_size)
        return ContinuousSparseDistributedState(self._origin.new_zeros(shape, dtype=dtype))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: ContinuousSparseDistributedState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], ContinuousSparseDistributedState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        _, keys, values, _ = self.project(torch.where(real.unsqueeze(-1), inputs, 0))
        sums, state = self._run(state, keys, values, real, fresh)
        return torch.where(real.unsqueeze(-1), sums, 0).to(inputs.dtype), state

    def write(
        self,
        state: ContinuousSparseDistributedState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> ContinuousSparseDistributedState:
        """Adds values at keys.

        Args:
            strength: what each value is multiplied by, any number: -1 takes out what 1 has written.
        """
        self.check_rows(state, keys.shape[0])
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        given = keys.new_ones(keys.shape[:2]) if strength is None else strength
        keys, values = (torch.where(real.unsqueeze(-1), x, 0) for x in (keys, values))
        return self._run(state, keys, values, torch.where(real, given, 0), torch.zeros_like(real))[1]

    def read(
        self, state: ContinuousSparseDistributedState, queries: Float[Tensor, "batch time keys"]
    ) -> Reading:
        """The sums at every query; the most active location comes first."""
        self.check_rows(state, queries.shape[0])
        with torch.autocast(queries.device.type, enabled=False):
            active = self._activations(queries, state.counters.dtype)
            weights, slots = active.topk(self.top_k, dim=-1)
            return Reading(active @ state.counters, weights, slots.masked_fill(weights == 0, -1))

    def _activations(self, queries: Tensor, dtype: torch.dtype) -> Tensor:
        return top_k_activations(queries.to(dtype), self.addresses.to(dtype), self.top_k)

    def _run(
        self,
        state: ContinuousSparseDistributedState,
        keys: Tensor,
        values: Tensor,
        strengths: Tensor,
        reset: Tensor,
    ) -> tuple[Tensor, ContinuousSparseDistributedState]:
        """The recurrence in the state's precision: the sums, and the state after the last step."""
        counters, dtype = state.counters, state.counters.dtype
        if not keys.shape[1]:
            return values.to(dtype), state
        run = add_and_sum_loop if self.naive else add_and_sum
        sums = []
        with torch.autocast(keys.device.type, enabled=False):
            parts = (x.split(self.chunk_size, 1) for x in (keys, values, strengths, reset))
            for some_keys, some_values, some_strengths, some_reset in zip(*parts, strict=True):
                active = self._activations(some_keys, dtype)
                found, counters = run(
                    counters, active, some_values.to(dtype), some_strengths.to(dtype), some_reset
                )
                sums.append(found)
        return torch.cat(sums, dim=1), ContinuousSparseDistributedState(counters)
