"""Attention over a bounded set of slots, with a policy for what to let go when they are full.

The read is the scaled dot-product attention of Vaswani et al. 2017, over all slots or over the best k as
in Rae et al. 2016 and Wu et al. 2022, "Memorizing Transformers". The write never blends: a slot holds one
pair until it is overwritten.
"""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import AddressableMemory, Projection, Reading, check_sizes
from mnemos.retention.policy import Policy, Usage, first_to_go
from mnemos.tree import detach, map_tensors, reset_rows


class KeyValueState(NamedTuple):
    """The clock is also the next id: one pair is written at every real step."""

    keys: Float[Tensor, "batch slots keys"]
    values: Float[Tensor, "batch slots width"]
    usage: Usage  # of every slot, ids -1 where it is empty; times in real steps
    clock: Int[Tensor, " batch"]  # real steps so far


class _Book(NamedTuple):
    """What lies where, without gradients: all that choosing a slot needs."""

    records: Int[Tensor, "batch slots"]  # which of the known pairs lies in each slot
    usage: Usage
    clock: Int[Tensor, " batch"]


@final
class KeyValue(AddressableMemory):
    """Keeps the last, the most used or the most surprising pairs, and attends to them.

    Each step reads by its query, then writes its key and value. While there are empty slots, the first
    of them is taken; then the one whose record the policy lets go first, so the newest is always kept.

    A read counts as use of every slot that it returned if `top_k` is given, and of the slot with the
    largest weight if all slots answer: else every slot would be used by every read, and no policy could
    tell them apart. A step's read comes before its write, at the same time of the clock. Use has no
    gradient: which pair is overwritten is not learned.

    Deciding what lies where is a loop over time without gradients; everything that has a gradient is then
    done for many steps at once. `naive` does both step by step.

    Args:
        key_size: width of keys and queries; scores are divided by its square root.
        value_size: width of values, which is that of the outputs.
        slots: how many pairs are kept, for every row.
        policy: what goes first, of `mnemos.retention`: the same object that a store takes. Times are in
            real steps, `strength` is what `write` was given.
        top_k: how many slots answer a query at most; None is all of them.
    """

    def __init__(
        self,
        input_size: int,
        key_size: int,
        value_size: int,
        slots: int,
        policy: Policy,
        top_k: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, key_size=key_size, value_size=value_size, slots=slots)
        check_sizes(top_k=1 if top_k is None else top_k)
        self.input_size, self.key_size, self.slots = input_size, key_size, slots
        self.value_size = self.output_size = value_size
        self.policy, self.top_k = policy, top_k
        self.capacity = slots
        self.naive = False
        self.to_query = nn.Linear(input_size, key_size, bias=False)
        self.to_key = nn.Linear(input_size, key_size, bias=False)
        self.to_value = nn.Linear(input_size, value_size, bias=False)

    def initial_state(self, batch_size: int) -> KeyValueState:
        new = self._origin.new_zeros
        counts = new(batch_size, self.slots, dtype=torch.int64)
        times = new(batch_size, self.slots, dtype=torch.float64)  # float32 would stop counting at 2^24
        return KeyValueState(
            keys=new(batch_size, self.slots, self.key_size),
            values=new(batch_size, self.slots, self.value_size),
            usage=Usage(counts - 1, times, times.clone(), counts, new(batch_size, self.slots)),
            clock=new(batch_size, dtype=torch.int64),
        )

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        return Projection(self.to_query(inputs), self.to_key(inputs), self.to_value(inputs))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: KeyValueState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], KeyValueState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        state = state._replace(usage=detach(state.usage))
        if self.naive:
            return super().forward(inputs, state, mask=mask, reset=reset)
        queries, keys, values, _ = self.project(inputs.masked_fill(~real.unsqueeze(-1), 0))
        if not inputs.shape[1]:
            return values, state
        length = max(32, self.slots)  # so that the work per step stays bounded
        outputs = []
        for steps in zip(*(x.split(length, 1) for x in (queries, keys, values, real, fresh)), strict=True):
            output, state = self._together(state, *steps)
            outputs.append(output)
        return torch.cat(outputs, dim=1).masked_fill(~real.unsqueeze(-1), 0), state

    def read(self, state: KeyValueState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """Softmax over the scores of the slots that are filled; an empty memory answers with zeros.

        Slots come best first if `top_k` is below their number, and else in their own order.
        """
        self.check_rows(state, queries.shape[0])
        scores = torch.einsum("btk,bsk->bts", queries, state.keys) / math.sqrt(self.key_size)
        filled = (state.usage.ids >= 0).unsqueeze(1).expand_as(scores)
        weights, slots = self._attend(scores, filled)
        return Reading(self._weighted(weights, slots, state.values), weights, slots)

    def touch(self, state: KeyValueState, reading: Reading) -> KeyValueState:
        """Counts one use, now, for every query and slot that it used."""
        times = self._times_used(reading.weights, reading.slots)
        return state._replace(usage=_touched(state.usage, times, state.clock))

    def write(
        self,
        state: KeyValueState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> KeyValueState:
        """Puts each pair into a slot of its own.

        Args:
            strength: what policies may weigh, for instance the pair's surprise; of 0 it is not written.
            mask: false where a pair is not written.
        """
        self.check_rows(state, keys.shape[0])
        strength = keys.new_ones(keys.shape[:2]) if strength is None else strength.detach()
        real = (strength > 0) if mask is None else (strength > 0) & mask
        steps = zip(*(x.unbind(1) for x in (strength.to(state.keys), real)), strict=True)
        contents, book = _pool(state, keys, values), self._open(state)
        with torch.no_grad():
            for number, (weight, step) in enumerate(steps):
                book = self._enter(book, contents[0], number, weight, step)
        return self._close(contents, book)

    def _together(
        self, state: KeyValueState, queries: Tensor, keys: Tensor, values: Tensor, real: Tensor, fresh: Tensor
    ) -> tuple[Tensor, KeyValueState]:
        """Many steps: first decides what lies where at each of them, then reads for all of them at once."""
        contents, book = _pool(state, keys, values), self._open(state)
        scores = torch.einsum("btk,brk->btr", queries, contents[0]) / math.sqrt(self.key_size)
        new, before = self._new_book(), []
        with torch.no_grad():
            steps = zip(*(x.unbind(1) for x in (scores.detach(), real, fresh)), strict=True)
            for number, (row, step, starts) in enumerate(steps):
                book = reset_rows(book, starts, new)
                before.append((book.records, book.usage.ids >= 0))
                weights, slots = self._attend(row.gather(1, book.records), before[-1][1])
                times = self._times_used(weights.unsqueeze(1), slots.unsqueeze(1)) * step.unsqueeze(1)
                book = book._replace(usage=_touched(book.usage, times, book.clock))
                book = self._enter(book, contents[0], number, torch.ones_like(row[:, 0]), step)
        records, filled = (torch.stack(part, dim=1) for part in zip(*before, strict=True))
        weights, slots = self._attend(scores.gather(2, records), filled)
        places = records.gather(2, slots.clamp(min=0))
        return self._weighted(weights, places, contents[1]), self._close(contents, book)

    def _attend(self, scores: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        """Weights, and the slots that they are of, -1 where there are fewer, for any leading axes."""
        scores = scores.masked_fill(~filled, -torch.inf)
        if self.top_k is None or self.top_k >= self.slots:
            slots = torch.arange(self.slots, device=scores.device).expand_as(scores)
        else:
            scores, slots = scores.topk(self.top_k, dim=-1)
        found = filled.gather(-1, slots)
        # Not -inf: a row without one filled slot would be NaN.
        weights = scores.masked_fill(~found, torch.finfo(scores.dtype).min).softmax(dim=-1)
        return weights.masked_fill(~found, 0), slots.masked_fill(~found, -1)

    def _times_used(self, weights: Tensor, slots: Tensor) -> Tensor:
        """How often each slot was used by the readings of every row."""
        if self.top_k is None:
            slots = slots.gather(2, weights.argmax(dim=2, keepdim=True))
        every = torch.arange(self.slots, device=slots.device)
        return (slots.unsqueeze(-1) == every).sum(dim=(1, 2))

    def _weighted(self, weights: Tensor, places: Tensor, values: Tensor) -> Tensor:
        """Sums of the values at `places`; as one dense product, which beats gathering them."""
        dense = weights.new_zeros(*weights.shape[:2], values.shape[1])
        return torch.bmm(dense.scatter_add(2, places.clamp(min=0), weights), values.to(weights))

    def _open(self, state: KeyValueState) -> _Book:
        count = torch.arange(self.slots, device=state.clock.device)
        return _Book(count.expand_as(state.usage.ids), state.usage, state.clock)

    def _new_book(self) -> _Book:
        """One row whose every slot holds the nothing of `_pool`."""
        new = self._open(self.initial_state(1))
        return new._replace(records=torch.full_like(new.records, self.slots))

    def _enter(self, book: _Book, keys: Tensor, number: int, strength: Tensor, real: Tensor) -> _Book:
        """Gives a new pair the slot that is empty or goes first, in the rows where it is real."""
        usage, clock = book.usage, book.clock.unsqueeze(1)
        looked_at = keys if self.policy.reads_keys else keys[..., :0]
        looked_at = looked_at.gather(1, book.records.unsqueeze(-1).expand(-1, -1, looked_at.shape[-1]))
        slot = first_to_go(self.policy.score(usage, looked_at, clock), usage.ids)
        chosen = functional.one_hot(slot, self.slots).bool() & real.unsqueeze(1)
        time = clock.to(usage.written_at)
        entry = Usage(clock, time, time, torch.zeros_like(clock), strength.unsqueeze(1))
        return _Book(
            book.records.masked_fill(chosen, self.slots + 1 + number),
            map_tensors(lambda new, old: torch.where(chosen, new, old), entry, usage),
            book.clock + real,
        )

    def _close(self, contents: tuple[Tensor, Tensor], book: _Book) -> KeyValueState:
        """The state in which every slot holds what the book says."""
        keys, values = (
            content.gather(1, book.records.unsqueeze(-1).expand(-1, -1, content.shape[2]))
            for content in contents
        )
        return KeyValueState(keys, values, book.usage, book.clock)


def _pool(state: KeyValueState, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """All that can lie in a slot: the pairs that do, nothing (which is zero), and then the new pairs."""
    return (
        torch.cat([state.keys, torch.zeros_like(state.keys[:, :1]), keys.to(state.keys)], dim=1),
        torch.cat([state.values, torch.zeros_like(state.values[:, :1]), values.to(state.values)], dim=1),
    )


def _touched(usage: Usage, times: Tensor, clock: Tensor) -> Usage:
    """After reading every slot `times` times."""
    now = clock.unsqueeze(1).to(usage.last_read)
    return usage._replace(
        last_read=torch.where(times > 0, now, usage.last_read), times_read=usage.times_read + times
    )
