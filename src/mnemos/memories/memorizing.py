"""Attention that also looks up what it needs among thousands of old steps: the Memorizing Transformer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.archive import Archive
from mnemos.memories.base import Memory, check_sizes
from mnemos.memories.combination import Combination, HeadGate
from mnemos.ops.best_keys import best_keys
from mnemos.ops.delta_rule import unit
from mnemos.ops.documents import Places, pick, places, real_last
from mnemos.ops.lookup import among, attended, best_attended, rows_of
from mnemos.ops.relative_attention import SMALLEST_BLOCK, shifted
from mnemos.tree import reset_rows, where_rows


class MemorizingState(NamedTuple):
    """The last slots + window real steps, the latest last; zeros where there is none yet."""

    keys: Float[Tensor, "batch slots heads keys"]  # of length one
    values: Float[Tensor, "batch slots heads keys"]
    clock: Int[Tensor, " batch"]  # real steps of the document
    committed: Int[Tensor, " batch"]  # how many of them, from the first on, are the archive's to remember


@final
class MemorizingAttention(Memory):
    """Attention over a window, and over the best `top_k` of the `slots` steps before it.

    Wu et al. 2022, "Memorizing Transformers". A step attends to itself and to the `window` real steps of its
    document before it, with a learned bias for each distance; and, with no sense of distance, to those
    `top_k` steps of the memory whose keys it likes best. A pair of key and value comes into the memory when
    it leaves the window, so that nothing is read twice, and is let go when `slots` younger ones are there.
    All goes by the count of real steps, so that it makes no difference how a sequence is cut.

    Queries and keys are of length one, and each head learns how sharply it tells them apart: else the keys of
    long ago, which were made by weights that have changed since, would be too long or too short beside new
    ones (the paper's section 3.2, after Henry et al. 2020). No parameter depends on `slots` and `top_k`:
    they can be larger when a model is used than when it was taught.

    In the paper no gradient enters the memory. Call `mnemos.detach(state)` between stretches of at most
    window + 1 steps: then none does, since what is read from the memory lies in an earlier stretch. Without
    it, or within a longer stretch, the gradient flows on into what was found.

    Args:
        output_size: width of the output; None means `input_size`.
        window: how many steps before it a step sees anyway, at least 1.
        slots: how many steps before those are remembered.
        top_k: how many of them a head reads at most; None is all of them.
        heads: attention heads; each looks up its own.
        key_size: width of a head's keys and values; None means input_size // heads.
        combination: how what is found joins what is seen; None is a `HeadGate`.
        archive: pairs that last beyond the state, and which all rows share. A head then reads the best of
            what the state remembers and the archive holds together; `commit` moves pairs from the one to
            the other. None is the state alone.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        window: int,
        slots: int,
        top_k: int | None = 32,
        heads: int = 1,
        key_size: int | None = None,
        combination: Combination | None = None,
        archive: Archive | None = None,
    ) -> None:
        super().__init__()
        output_size = input_size if output_size is None else output_size
        key_size = input_size // max(heads, 1) if key_size is None else key_size
        check_sizes(input_size=input_size, output_size=output_size, window=window, slots=slots)
        check_sizes(top_k=1 if top_k is None else top_k, heads=heads, key_size=key_size)
        self.input_size, self.output_size = input_size, output_size
        self.window, self.slots, self.top_k = window, slots, top_k
        self.heads, self.key_size = heads, key_size
        self.combination = HeadGate(heads) if combination is None else combination
        self.archive = archive
        if archive is not None:
            archive.check(heads, key_size)
        self.naive = False
        self.query = nn.Linear(input_size, heads * key_size, bias=False)
        self.key = nn.Linear(input_size, heads * key_size, bias=False)
        self.value = nn.Linear(input_size, heads * key_size, bias=False)
        self.sharpness = nn.Parameter(torch.full((heads,), math.log(10.0)))  # the logarithm of the scale
        self.distance_bias = nn.Parameter(torch.zeros(heads, window + 1))
        self.output = nn.Linear(heads * key_size, output_size, bias=False)

    def initial_state(self, batch_size: int) -> MemorizingState:
        keys = self._origin.new_zeros(batch_size, self.slots + self.window, self.heads, self.key_size)
        clock = keys.new_zeros(batch_size, dtype=torch.int64)
        return MemorizingState(keys, keys.clone(), clock, clock.clone())

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: MemorizingState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], MemorizingState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(-1), inputs, 0)  # padding may hold anything, NaN included
        queries, keys, values = (
            layer(inputs).unflatten(2, (self.heads, self.key_size))
            for layer in (self.query, self.key, self.value)
        )
        queries, keys = unit(queries) * self.sharpness.exp().unsqueeze(1), unit(keys)
        # A window's length, so that a step's cost does not grow with the stretch.
        length = 1 if self.naive else max(self.window, SMALLEST_BLOCK)
        reads: list[Tensor] = []
        for piece in self._cut(length, queries, keys, values, real, fresh):
            if self.naive:
                read, state = self._step(state, *(x.squeeze(1) for x in piece))
            else:
                read, state = self._piece(state, *piece, has_holes=mask is not None)
            reads.append(read)
        if not reads:
            return inputs.new_zeros(*inputs.shape[:2], self.output_size), state
        return torch.where(real.unsqueeze(-1), self.output(torch.cat(reads, dim=1).flatten(2)), 0), state

    def commit(
        self,
        state: MemorizingState,
        *,
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        ended: Bool[Tensor, " batch"] | None = None,
    ) -> MemorizingState:
        """Writes what the state remembers to the archive, in one transaction, and returns the state without.

        That is every step that has left the window, so that it makes no difference to what a step reads. A
        step is remembered by the state until `slots` more have followed: call this at least as often, and
        at the end of a document. What has gone without, is gone.

        Args:
            metadata: of the records, one for all rows or one for each, beside the "step", which is the
                number of real steps before it in its document.
            ended: true where a row's document is over. Its window is written too, and the row starts afresh.

        Raises:
            ValueError: there is no archive, its store holds something else, or an argument does not fit.
                Nothing is written, as with whatever the store raises.
        """
        if self.archive is None:
            raise ValueError("commit needs a memory with an archive")
        if ended is not None and (ended.dtype != torch.bool or ended.shape != state.clock.shape):
            raise ValueError(
                f"ended must be boolean of shape ({len(state.clock)},), "
                f"not {ended.dtype} of shape {tuple(ended.shape)}"
            )
        clock = state.clock.unsqueeze(1)
        number = clock + torch.arange(-state.keys.shape[1], 0, device=clock.device)
        within = self.window if ended is None else torch.where(ended, 0, self.window).unsqueeze(1)
        leaving = (number >= state.committed.unsqueeze(1)) & (number < clock - within)
        self.archive.write(state.keys, state.values, number, leaving, metadata)
        state = state._replace(committed=torch.maximum(state.committed, state.clock - self.window))
        return state if ended is None else reset_rows(state, ended, self.initial_state(1))

    def _cut(self, length: int, *steps: Tensor) -> Iterator[tuple[Tensor, ...]]:
        if steps[0].shape[1]:
            yield from zip(*(x.split(length, 1) for x in steps), strict=True)

    def _piece(
        self,
        state: MemorizingState,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        real: Tensor,
        fresh: Tensor,
        *,
        has_holes: bool,
    ) -> tuple[Float[Tensor, "batch time heads keys"], MemorizingState]:
        time, carried = queries.shape[1], self.slots + self.window
        place = places(state.clock, carried, real, fresh)
        keys, values = (
            torch.cat([old, new.to(old.dtype)], dim=1)
            for old, new in ((state.keys, keys), (state.values, values))
        )
        order = None
        if has_holes:
            # Real steps are moved together at the end, so that columns count them alone, and back.
            order = real_last(place.document)
            back = order.argsort(dim=1)[:, carried:] - carried  # of the real steps: never below 0
            keys, values = pick(keys, order), pick(values, order)
            queries = pick(queries, (order[:, carried:] - carried).clamp_min(0))
            document, number = place.document.gather(1, order), place.number.gather(1, order)
            place = place._replace(document=document, number=number)
        queries = queries.transpose(1, 2)
        own = torch.where(place.document[:, -time:] == 0, state.committed.unsqueeze(1), 0)
        read = self._read(queries, keys.transpose(1, 2), values.transpose(1, 2), place, own).transpose(1, 2)
        kept = (place.document[:, time:] == place.last.unsqueeze(1))[:, :, None, None]
        after = MemorizingState(
            torch.where(kept, keys[:, time:], 0),
            torch.where(kept, values[:, time:], 0),
            place.clock,
            torch.where(place.last == 0, state.committed, 0),
        )
        return read if order is None else pick(read, back.clamp_min(0)), after

    def _read(
        self,
        queries: Float[Tensor, "batch heads time keys"],
        keys: Float[Tensor, "batch heads seen keys"],
        values: Float[Tensor, "batch heads seen keys"],
        place: Places,
        committed: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch heads time keys"]:
        """What the last `time` of the steps seen read, of the window and of the memory."""
        time, near = queries.shape[2], self.window + queries.shape[2]
        column = torch.arange(keys.shape[2], device=keys.device)
        own, before = column[-time:], place.number[:, -time:]  # what lies before a step of its document
        first = (own - before.clamp_max(self.window)).unsqueeze(2)
        seen = (column[-near:] >= first) & (column[-near:] <= own.unsqueeze(1))
        bias = shifted(self.distance_bias.flip(1).unsqueeze(1).expand(-1, time, -1))
        scores = among(queries @ keys[:, :, -near:].mT + bias, seen.unsqueeze(1))
        found, total = self._look_up(
            queries,
            keys,
            values,
            own - (before - committed).clamp_max(self.window + self.slots),
            (own - self.window - 1).expand_as(before),
        )
        return self._combined(*attended(scores, values[:, :, -near:]), found, total)

    def _look_up(
        self,
        queries: Float[Tensor, "batch heads time keys"],
        keys: Float[Tensor, "batch heads seen keys"],
        values: Float[Tensor, "batch heads seen keys"],
        first: Int[Tensor, "batch time"],
        last: Int[Tensor, "batch time"],
    ) -> tuple[Float[Tensor, "batch heads time keys"], Float[Tensor, "batch heads time"]]:
        """What is found from the first to the last, and the logarithm of what its softmax normalises."""
        archived = None if self.archive is None else self.archive.read(queries, self.top_k)
        if self.top_k is None or self.top_k >= self.slots:
            column = torch.arange(keys.shape[2], device=keys.device)
            remembered = (column >= first.unsqueeze(2)) & (column <= last.unsqueeze(2))
            scores = among(queries @ keys.mT, remembered.unsqueeze(1))
            if archived is None:
                return attended(scores, values)
            values = values.unsqueeze(2)
        else:
            # The choice has no gradient, so nothing but what is chosen is worth one.
            chosen = best_keys(queries.detach(), keys.detach(), first, last, self.top_k)
            remembered = (chosen >= first[:, None, :, None]) & (chosen <= last[:, None, :, None])
            scores = among((rows_of(keys, chosen) * queries.unsqueeze(3)).sum(4), remembered)
            values = rows_of(values, chosen)
            if archived is None:
                return (scores.softmax(3).unsqueeze(4) * values).sum(3), scores.logsumexp(3)
        old = torch.einsum("bhtk,bhtfk->bhtf", queries, archived.keys.to(queries))
        return best_attended([scores, old], [values, archived.values.to(values)], self.top_k)

    def _combined(self, seen: Tensor, window: Tensor, found: Tensor, memory: Tensor) -> Tensor:
        """Both reads, by the memory's share, which is nothing as long as the memory is empty."""
        empty = memory <= torch.finfo(memory.dtype).min / 2
        share = torch.where(empty, 0, self.combination(window, memory)).unsqueeze(-1)
        return seen + share * (torch.where(empty.unsqueeze(-1), 0, found) - seen)

    def _step(
        self,
        state: MemorizingState,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        known: Bool[Tensor, " batch"],
        starts: Bool[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch 1 heads keys"], MemorizingState]:
        """One step of every row, the plain way."""
        state = reset_rows(state, starts, self.initial_state(1))
        keys = torch.cat([state.keys, key.unsqueeze(1).to(state.keys)], dim=1)
        values = torch.cat([state.values, value.unsqueeze(1).to(state.values)], dim=1)
        after = MemorizingState(keys[:, 1:].clone(), values[:, 1:].clone(), state.clock + 1, state.committed)
        archived = None if self.archive is None else self.archive.read(query.unsqueeze(2), None)
        if archived is not None:  # they stand before the oldest that is carried
            old = (x.squeeze(2).transpose(1, 2).expand(len(query), -1, -1, -1) for x in archived)
            keys, values = (torch.cat([x.to(y), y], dim=1) for x, y in zip(old, (keys, values), strict=True))
        age = torch.arange(keys.shape[1] - 1, -1, -1, device=keys.device)
        number, carried = state.clock.unsqueeze(1) - age, age <= self.window + self.slots
        seen_at = (number >= 0) & (age <= self.window)
        found_at = (age > self.window) & ((number >= state.committed.unsqueeze(1)) | ~carried)
        scores = torch.einsum("bhk,bshk->bhs", query, keys)
        scores = scores + functional.pad(self.distance_bias.flip(1), (len(age) - self.window - 1, 0))
        near, far = among(scores, seen_at.unsqueeze(1)), among(scores, found_at.unsqueeze(1))
        best, chosen = far.topk(min(self.top_k or far.shape[2], far.shape[2]), dim=2)
        weights = torch.zeros_like(far).scatter(2, chosen, best.softmax(2))
        seen, found = (torch.einsum("bhs,bshk->bhk", x, values) for x in (near.softmax(2), weights))
        read = self._combined(
            seen.unsqueeze(2), near.logsumexp(2, True), found.unsqueeze(2), best.logsumexp(2, True)
        )
        return read.transpose(1, 2), where_rows(known, after, state)
