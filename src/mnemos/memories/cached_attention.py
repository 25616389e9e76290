"""Attention over a bounded cache of steps, with a policy for what to let go when it is full."""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import check_sizes
from mnemos.memories.stepped import SteppedMemory
from mnemos.retention.policy import Policy, Usage, first_to_go
from mnemos.tree import detach, map_tensors


class CachedAttentionState(NamedTuple):
    """The clock is also the next id: one pair of key and value is kept of every real step."""

    keys: Float[Tensor, "batch slots heads keys"]
    values: Float[Tensor, "batch slots heads keys"]
    usage: Usage  # ids -1 where a slot is empty; times in real steps, strength the attention it got
    clock: Int[Tensor, " batch"]  # real steps of the document


@final
class CachedAttention(SteppedMemory):
    """Self-attention over a step and what a policy has kept of those before it.

    With `attention_sinks` this is StreamingLLM (Xiao et al. 2023), with `heavy_hitters` H2O (Zhang et al.
    2023), with both together their sum, and with `first_in_first_out` a window. As in the former, places are
    those in the cache: what lies between two steps that were kept counts for nothing. Each head learns a bias
    for the number of kept steps in between.

    A step's strength is the attention that it has got, averaged over the heads, from itself and from all
    later steps; the one that gets the most at a step has been read by it. None of this has a gradient. The
    newest step is always kept.

    Args:
        output_size: width of the output; None means `input_size`.
        slots: how many steps are kept, for every row.
        policy: what goes first when they are full, of `mnemos.retention`.
        heads: attention heads, which keep and let go the same steps.
        key_size: width of a head's keys and values; None means input_size // heads.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        slots: int,
        policy: Policy,
        heads: int = 1,
        key_size: int | None = None,
    ) -> None:
        super().__init__()
        output_size = input_size if output_size is None else output_size
        key_size = input_size // max(heads, 1) if key_size is None else key_size
        check_sizes(input_size=input_size, output_size=output_size, slots=slots)
        check_sizes(heads=heads, key_size=key_size)
        self.input_size, self.output_size = input_size, output_size
        self.slots, self.policy, self.heads, self.key_size = slots, policy, heads, key_size
        self.capacity = slots
        self.to_queries_keys_values = nn.Linear(input_size, 3 * heads * key_size, bias=False)
        self.distance_bias = nn.Parameter(torch.zeros(heads, slots + 1))
        self.output = nn.Linear(heads * key_size, output_size, bias=False)

    def initial_state(self, batch_size: int) -> CachedAttentionState:
        new = self._origin.new_zeros
        counts = new(batch_size, self.slots, dtype=torch.int64)
        times = new(batch_size, self.slots, dtype=torch.float64)  # float32 would stop counting at 2^24
        keys = new(batch_size, self.slots, self.heads, self.key_size)
        usage = Usage(counts - 1, times, times.clone(), counts, new(batch_size, self.slots))
        return CachedAttentionState(keys, keys.clone(), usage, new(batch_size, dtype=torch.int64))

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        prepared: Tensor = self.to_queries_keys_values(inputs)
        return prepared

    def step(
        self, prepared: Float[Tensor, "batch prepared"], state: CachedAttentionState
    ) -> tuple[Tensor, CachedAttentionState]:
        query, key, value = prepared.unflatten(1, (3, self.heads, self.key_size)).unbind(1)
        key, value = key.to(state.keys), value.to(state.values)
        usage = detach(state.usage)
        filled = usage.ids >= 0
        # How many kept steps are no older: 1 for the newest. Empty slots have the lowest id.
        distance = self.slots - usage.ids.argsort(dim=1, stable=True).argsort(dim=1)
        bias = self.distance_bias.mT[functional.pad(distance, (0, 1))].mT
        scores = torch.einsum("bhk,bshk->bhs", query, torch.cat([state.keys, key.unsqueeze(1)], dim=1))
        scores = (scores / math.sqrt(self.key_size) + bias).masked_fill(
            ~functional.pad(filled, (0, 1), value=True).unsqueeze(1), -torch.inf
        )
        weights = scores.softmax(2)
        read = torch.einsum("bhs,bshk->bhk", weights, torch.cat([state.values, value.unsqueeze(1)], dim=1))
        with torch.no_grad():
            got = weights.mean(1).to(usage.strength)
            usage, chosen = self._entered(usage, state.keys, got, state.clock)
        place = chosen[:, :, None, None]
        after = CachedAttentionState(
            torch.where(place, key.unsqueeze(1), state.keys),
            torch.where(place, value.unsqueeze(1), state.values),
            usage,
            state.clock + 1,
        )
        return read.flatten(1), after

    def conclude(self, given: Float[Tensor, "*shape given"]) -> Float[Tensor, "*shape output"]:
        outputs: Tensor = self.output(given)
        return outputs

    def _entered(self, usage: Usage, keys: Tensor, got: Tensor, clock: Tensor) -> tuple[Usage, Tensor]:
        """Counts the attention that a step gave, and finds the step itself a slot."""
        now = clock.unsqueeze(1)
        most = functional.one_hot(got.argmax(1), self.slots + 1)[:, : self.slots]
        usage = usage._replace(
            last_read=torch.where(most > 0, now.to(usage.last_read), usage.last_read),
            times_read=usage.times_read + most,
            strength=usage.strength + got[:, : self.slots],
        )
        looked_at = keys.flatten(2) if self.policy.reads_keys else keys.flatten(2)[..., :0]
        slot = first_to_go(self.policy.score(usage, looked_at, now), usage.ids)
        chosen = functional.one_hot(slot, self.slots).bool()
        entry = Usage(
            now,
            now.to(usage.written_at),
            now.to(usage.last_read),
            torch.zeros_like(now),
            got[:, self.slots :],
        )
        return map_tensors(lambda new, old: torch.where(chosen, new, old), entry, usage), chosen
