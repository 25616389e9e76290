"""Attention over a window and over a compressed memory of what has left it: the Compressive Transformer."""

from collections.abc import Iterator
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mnemos.memories.base import Memory, check_sizes
from mnemos.memories.compression import Compression, LeavingBlocks, View, blocks_leaving
from mnemos.ops.documents import Places, pick, places, real_last
from mnemos.ops.relative_attention import (
    SMALLEST_BLOCK,
    masked_softmax,
    relative_scores,
    relative_scores_at,
    sinusoids,
)
from mnemos.tree import reset_rows, where_rows


class CompressiveState(NamedTuple):
    """The latest step and the latest block come last; zeros where there is none yet."""

    inputs: Float[Tensor, "batch slots input"]  # m, the last steps as the layer got them
    usage: Float[Tensor, "batch slots"]  # the attention that each of them got so far, without gradients
    compressed: Float[Tensor, "batch blocks input"]  # cm
    clock: Int[Tensor, " batch"]  # real steps of the document: what lies where follows from it


@final
class CompressiveMemory(Memory):
    """Relative attention over the last steps, and over one vector for every block of steps before them.

    Rae et al. 2020, "Compressive Transformers for Long-Range Sequence Modelling". The steps of a document
    are counted off in blocks of the compression's `rate` c. When all of a block lies more than `window` steps
    back, it is compressed; until then all of it can be seen, so that a step sees the `window` to
    window + c - 1 steps before it as they are, and the `compressed` blocks before those. A layer reaches
    window + c x compressed steps back.

    The paper compresses at the end of a segment as many steps as the segment has. Here it is a step's number
    in its document that decides, so that it makes no difference how a sequence is cut. And where the paper
    counts a compressed vector as one position, here its distance is that of the block's last step: else the
    distance of a block would change by how far the next one is, and no head could find what was said a given
    number of steps ago.

    Nothing is cut from the gradient: `mnemos.detach(state)` between segments does that, as in the paper, and
    what was compressed before has none then. The paper teaches the compression by a loss of its own, which
    no other parameter feels: one of `mnemos.memories.compression_loss`. The gradient of the outputs reaches
    the compression too, where a block was compressed and asked for in one stretch.

    Args:
        output_size: width of the output; None means `input_size`.
        window: how many steps back are never compressed, at least 1.
        compressed: how many compressed blocks are kept, at least 1.
        compression: what is kept of a block: one of `mnemos.memories.compression`.
        heads: attention heads.
        key_size: width of a head's keys and values; None means input_size // heads.
    """

    _sinusoids: Tensor

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        window: int,
        compressed: int,
        compression: Compression,
        heads: int = 1,
        key_size: int | None = None,
    ) -> None:
        super().__init__()
        output_size = input_size if output_size is None else output_size
        key_size = input_size // max(heads, 1) if key_size is None else key_size
        check_sizes(input_size=input_size, output_size=output_size, window=window)
        check_sizes(compressed=compressed, heads=heads, key_size=key_size)
        self.input_size, self.output_size = input_size, output_size
        self.window, self.compressed, self.compression = window, compressed, compression
        self.heads, self.key_size = heads, key_size
        self.naive = False
        self.query = nn.Linear(input_size, heads * key_size, bias=False)
        self.key = nn.Linear(input_size, heads * key_size, bias=False)
        self.value = nn.Linear(input_size, heads * key_size, bias=False)
        self.distance = nn.Linear(input_size, heads * key_size, bias=False)  # W_{k,R}
        self.content_bias = nn.Parameter(torch.zeros(heads, key_size))  # u
        self.position_bias = nn.Parameter(torch.zeros(heads, key_size))  # v
        self.output = nn.Linear(heads * key_size, output_size, bias=False)
        reach = window + compression.rate * compressed
        self.register_buffer("_sinusoids", sinusoids(reach + 1, input_size), persistent=False)

    def initial_state(self, batch_size: int) -> CompressiveState:
        new = self._origin.new_zeros
        slots = self.window + self.compression.span - 1
        return CompressiveState(
            inputs=new(batch_size, slots, self.input_size),
            usage=new(batch_size, slots),
            compressed=new(batch_size, self.compressed, self.input_size),
            clock=new(batch_size, dtype=torch.int64),
        )

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: CompressiveState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], CompressiveState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        state = state._replace(usage=state.usage.detach())
        inputs = torch.where(real.unsqueeze(-1), inputs, 0)  # padding may hold anything, NaN included
        reads: list[Tensor] = []
        if self.naive:
            for x, known, starts in zip(inputs.unbind(1), real.unbind(1), fresh.unbind(1), strict=True):
                state = reset_rows(state, starts, self.initial_state(1))
                read, after = self._step(x, state)
                state = where_rows(known, after, state)
                reads.append(read.unsqueeze(1))
        else:
            for steps in self._pieces(inputs, real, fresh):
                read, state = self._piece(state, *steps, has_holes=mask is not None)
                reads.append(read)
        if not reads:
            return inputs.new_zeros(*inputs.shape[:2], self.output_size), state
        return torch.where(real.unsqueeze(-1), self.output(torch.cat(reads, dim=1)), 0), state

    @torch.no_grad()
    def leaving_in(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: CompressiveState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> list[LeavingBlocks]:
        """The blocks that `forward` compresses in a stretch, piece by piece and without any history."""
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(-1), inputs, 0)
        leaving = []
        for steps in self._pieces(inputs, real, fresh):
            view = self._look(state, *steps, has_holes=mask is not None)
            if self.compression.reads_usage:
                view = self._with_usage(view, *self._window_scores(view))
            leaving.append(blocks_leaving(view, self.window, self.compression))
            state = CompressiveState(*self._carried(view), state.compressed, view.place.clock)
        return leaving

    def _pieces(self, *steps: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The stretch in pieces of about a window, so that a step's cost does not grow with the stretch."""
        if steps[0].shape[1]:
            yield from zip(*(x.split(max(self.window, SMALLEST_BLOCK), 1) for x in steps), strict=True)

    def _look(
        self, state: CompressiveState, inputs: Tensor, real: Tensor, fresh: Tensor, *, has_holes: bool
    ) -> View:
        time, slots = inputs.shape[1], state.inputs.shape[1]
        place = places(state.clock, slots, real, fresh)
        seen = torch.cat([state.inputs, inputs.to(state.inputs.dtype)], dim=1)
        usage = nn.functional.pad(state.usage, (0, time))
        new = torch.arange(slots + time, device=seen.device).expand_as(usage) >= slots
        if not has_holes:
            return View(seen, usage, place, new, None, time)
        # Real steps are moved together at the end, so that columns count them alone, and back.
        order = real_last(place.document)
        back = order.argsort(dim=1)[:, slots:] - slots  # of the real steps: never below 0
        document, number = place.document.gather(1, order), place.number.gather(1, order)
        place = place._replace(document=document, number=number)
        return View(pick(seen, order), usage.gather(1, order), place, order >= slots, back.clamp_min(0), time)

    def _piece(
        self, state: CompressiveState, inputs: Tensor, real: Tensor, fresh: Tensor, *, has_holes: bool
    ) -> tuple[Tensor, CompressiveState]:
        """What the steps of a piece read, all heads side by side, and the state after it."""
        view = self._look(state, inputs, real, fresh, has_holes=has_holes)
        scores, visible = self._window_scores(view)
        if self.compression.reads_usage:
            view = self._with_usage(view, scores, visible)
        leaving = blocks_leaving(view, self.window, self.compression)
        blocks = torch.cat([state.compressed, self.compression(leaving.steps, leaving.usage)], dim=1)
        first = _blocks(state.clock, self.window, self.compression.rate) - self.compressed
        old = self.compression.rate * (first.unsqueeze(1) + 1 + self._slots()) - 1
        last = torch.cat([old, leaving.last], dim=1)
        document = torch.cat([torch.zeros_like(old), leaving.document], dim=1)
        read = self._read(view, scores, visible, blocks, document, last)
        compressed = self._kept(view.place, blocks, document, last)
        after = CompressiveState(*self._carried(view), compressed, view.place.clock)
        return read if view.back is None else pick(read, view.back), after

    def _carried(self, view: View) -> tuple[Tensor, Tensor]:
        """The last steps of the last document, and how they were used."""
        kept = (view.place.document == view.place.last.unsqueeze(1))[:, view.time :]
        inputs, usage = view.seen[:, view.time :], view.usage[:, view.time :]
        return torch.where(kept.unsqueeze(-1), inputs, 0), torch.where(kept, usage, 0)

    def _kept(self, place: Places, blocks: Tensor, document: Tensor, last: Tensor) -> Tensor:
        """The last blocks of the last document."""
        oldest = _blocks(place.clock, self.window, self.compression.rate) - self.compressed
        left = (document == place.last.unsqueeze(1)) & (last // self.compression.rate >= oldest.unsqueeze(1))
        order = left.byte().argsort(dim=1, stable=True)[:, -self.compressed :]
        kept = torch.where(left.gather(1, order).unsqueeze(-1), pick(blocks, order), 0)
        return kept.to(self._sinusoids)

    def _window_scores(self, view: View) -> tuple[Tensor, Tensor]:
        """The scores of what is not compressed: (batch, heads, time, recent), and what of it is visible."""
        seen, place, time = view.seen, view.place, view.time
        recent = self.window + self.compression.rate - 1 + time
        scores = relative_scores(
            self._heads(self.query(seen[:, -time:])).transpose(1, 2),
            self._heads(self.key(seen[:, -recent:])).permute(0, 2, 3, 1),
            self._heads(self.distance(self._sinusoids[: self.window + self.compression.rate])),
            self.content_bias,
            self.position_bias,
        )
        document, number = (x[:, None, -recent:] for x in (place.document, place.number))
        own_document, own = place.document[:, -time:, None], place.number[:, -time:, None]
        first = self.compression.rate * _blocks(own, self.window, self.compression.rate)
        return scores, (document == own_document) & (document >= 0) & (number >= first) & (number <= own)

    @torch.no_grad()
    def _with_usage(self, view: View, scores: Tensor, visible: Tensor) -> View:
        """Adds to each step what it got of the attention to what is not compressed.

        Attention to compressed blocks does not count here, as it would in the paper: it hangs on which steps
        were found most used before, so that no two blocks could be compressed at once.
        """
        asking = (view.new & (view.place.document >= 0))[:, -view.time :, None]
        weights = masked_softmax(scores.detach(), visible.unsqueeze(1)).mean(1)
        got = torch.where(asking & visible, weights, 0).sum(1).to(view.usage)
        return view._replace(
            usage=view.usage + nn.functional.pad(got, (view.usage.shape[1] - got.shape[1], 0))
        )

    def _read(
        self, view: View, scores: Tensor, visible: Tensor, blocks: Tensor, document: Tensor, last: Tensor
    ) -> Tensor:
        """Attention to the window, whose scores are known, and to the blocks."""
        seen, place = view.seen, view.place
        time, rate = scores.shape[2], self.compression.rate
        own_document, own = place.document[:, -time:, None], place.number[:, -time:, None]
        distance = own - last.unsqueeze(1) - self.window - 1  # beyond that of the nearest block
        far_scores = relative_scores_at(
            self._heads(self.query(seen[:, -time:])).transpose(1, 2),
            self._heads(self.key(blocks)).permute(0, 2, 3, 1),
            self._heads(self.distance(self._sinusoids[self.window + 1 :])),
            self.content_bias,
            self.position_bias,
            distance.clamp(0, rate * self.compressed - 1),
        )
        made = _blocks(own, self.window, rate)
        block, document = last.unsqueeze(1) // rate, document.unsqueeze(1)
        kept = (document == own_document) & (document >= 0)
        kept = kept & (block >= 0) & (block < made) & (block >= made - self.compressed)
        weights = masked_softmax(
            torch.cat([scores, far_scores], dim=3), torch.cat([visible, kept], dim=2).unsqueeze(1)
        )
        values = self.value(torch.cat([seen[:, -scores.shape[3] :], blocks.to(seen.dtype)], dim=1))
        return (weights @ self._heads(values).transpose(1, 2)).transpose(1, 2).flatten(2)

    def _step(self, x: Tensor, state: CompressiveState) -> tuple[Tensor, CompressiveState]:
        """One step of every row, the plain way."""
        rate, span, slots = self.compression.rate, self.compression.span, state.inputs.shape[1]
        made = _blocks(state.clock, self.window, rate).unsqueeze(1)
        seen = torch.cat([state.inputs, x.unsqueeze(1).to(state.inputs.dtype)], dim=1)
        number = state.clock.unsqueeze(1) + torch.arange(-slots, 1, device=x.device)
        last = rate * (made - self.compressed + 1 + self._slots()) - 1
        visible = torch.cat([number >= rate * made, last >= 0], dim=1)
        distance = state.clock.unsqueeze(1) - torch.cat([number, last], dim=1)
        distance = distance.clamp_max(len(self._sinusoids) - 1)
        everything = torch.cat([seen, state.compressed], dim=1)
        scores = relative_scores_at(
            self._heads(self.query(x)).unsqueeze(2),
            self._heads(self.key(everything)).permute(0, 2, 3, 1),
            self._heads(self.distance(self._sinusoids)),
            self.content_bias,
            self.position_bias,
            distance.unsqueeze(1),
        ).squeeze(2)
        weights = masked_softmax(scores, visible.unsqueeze(1))
        read = torch.einsum("bhs,bshk->bhk", weights, self._heads(self.value(everything))).flatten(1)
        usage = nn.functional.pad(state.usage, (0, 1))
        if self.compression.reads_usage:
            alone = masked_softmax(scores[..., : slots + 1].detach(), visible[:, None, : slots + 1])
            usage = usage + alone.mean(1)
        clock = state.clock + 1
        average = usage[:, :span] / (self.window + torch.arange(span, 0, -1, device=x.device))
        block = self.compression(seen[:, None, :span], average.unsqueeze(1))
        shifted = torch.cat([state.compressed[:, 1:], block.to(state.compressed)], dim=1)
        leaves = (_blocks(clock, self.window, rate) > made.squeeze(1))[:, None, None]
        compressed = torch.where(leaves, shifted, state.compressed)
        return read, CompressiveState(seen[:, 1:], usage[:, 1:], compressed, clock)

    def _slots(self) -> Int[Tensor, " blocks"]:
        return torch.arange(self.compressed, device=self._origin.device)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.key_size))


def _blocks(clock: Tensor, window: int, rate: int) -> Tensor:
    """How many blocks lie wholly more than `window` steps back, after so many steps."""
    return (clock - window).clamp_min(0) // rate
