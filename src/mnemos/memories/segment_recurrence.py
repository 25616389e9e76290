"""A transformer that reads segment by segment and writes what it keeps when a segment ends."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import Memory, check_sizes
from mnemos.ops.chunk_places import ChunkPlaces, chunk_places, into_chunks, out_of_chunks
from mnemos.ops.rotary import rotate
from mnemos.tree import reset_rows, where_rows

BASE = 10_000.0  # of the rotations


class SegmentState(NamedTuple):
    """What the finished segments left, and the steps of the one at hand; zeros where there is none."""

    memory: Any  # of the kind that a class says
    keys: Float[Tensor, "batch layers slots heads keys"]  # room for all steps of a segment but its last
    values: Float[Tensor, "batch layers slots heads keys"]
    position: Int[Tensor, " batch"]  # how many there are


class Held(NamedTuple):
    """The steps of a segment that were seen before."""

    keys: Float[Tensor, "batch layers slots heads keys"]
    values: Float[Tensor, "batch layers slots heads keys"]
    position: Int[Tensor, " batch"]


class SegmentLayer(nn.Module):
    """Attention with rotary positions and a SwiGLU feed-forward network, each after an RMSNorm."""

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_feed_forward = nn.RMSNorm(width), nn.RMSNorm(width)
        self.to_queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.from_values = nn.Linear(width, width, bias=False)
        self.to_hidden = nn.Linear(width, 2 * feed_forward, bias=False)
        self.to_outputs = nn.Linear(feed_forward, width, bias=False)

    def forward(
        self,
        inputs: Float[Tensor, "batch time width"],
        positions: Int[Tensor, "batch time"],
        visible: Bool[Tensor, "batch 1 time seen"],
        before: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the layer gives, and the keys and values of its inputs.

        Args:
            visible: which of the keys before, and then of the inputs, each input sees.
            before: keys and values of steps that were seen before, (batch, slots, heads, keys).
        """
        projected = self.to_queries_keys_values(self.before_attention(inputs))
        turning, values = projected.unflatten(2, (3 * self.heads, -1)).split([2 * self.heads, self.heads], 2)
        queries, keys = rotate(turning, positions, BASE).chunk(2, dim=2)
        seen_keys, seen_values = (
            torch.cat([old.to(new.dtype), new], dim=1)
            for old, new in zip(before, (keys, values), strict=True)
        )
        read = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), seen_keys.transpose(1, 2), seen_values.transpose(1, 2), attn_mask=visible
        )
        hidden = inputs + self.from_values(read.transpose(1, 2).flatten(2))
        gate, wide = self.to_hidden(self.before_feed_forward(hidden)).chunk(2, dim=-1)
        return hidden + self.to_outputs(functional.silu(gate) * wide), keys, values


class SegmentRecurrence(Memory):
    """What the recurrent memory transformers share: layers that run over one segment at a time.

    A segment is `segment_size` real steps of a document. What the layers see are memory tokens that are read,
    the segment, and memory tokens that are written. The first see one another, a step sees them and the steps
    of its segment so far, and the last see everything. When a segment is complete, what the layers made of
    the last is kept for the next. A cut between two stretches is nothing: the keys and values of a segment
    that is not complete are in the state, for each row its own.

    The gradient flows through all segments of the stretches that are run; `mnemos.detach(state)` between
    stretches is where backpropagation through time ends.

    Positions are those in the segment, and nothing depends on how many segments there were. The outputs, and
    so what is carried, are normed.

    A concrete class says what its memory is (`nothing`), which tokens are read and which are written
    (`tokens`), what a layer is told beside its inputs (`recall`), and what is kept of a segment (`remember`).
    """

    def __init__(
        self,
        input_size: int,
        *,
        segment_size: int,
        slots: int,
        layers: int,
        heads: int,
        feed_forward: int | None,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, segment_size=segment_size, layers=layers, heads=heads)
        check_sizes(feed_forward=1 if feed_forward is None else feed_forward)
        if input_size % (2 * heads):
            raise ValueError(f"input_size must be a multiple of 2 x heads, not {input_size} for {heads}")
        self.input_size = self.output_size = input_size
        self.segment_size, self.slots, self.heads = segment_size, slots, heads
        self.layers, self.feed_forward = layers, feed_forward
        self.naive = False
        hidden = 2 * input_size if feed_forward is None else feed_forward
        self.stack = nn.ModuleList(SegmentLayer(input_size, heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(input_size, eps=1e-5)

    @abstractmethod
    def nothing(self, batch_size: int) -> Any:
        """The memory before the first segment."""

    @abstractmethod
    def tokens(self, memory: Any) -> tuple[Tensor, Tensor]:
        """The memory tokens that a segment begins with and those that it ends with, (batch, slots, width)."""

    @abstractmethod
    def recall(self, memory: Any, layer: int, hidden: Float[Tensor, "batch time width"]) -> Tensor:
        """The inputs of a layer."""

    @abstractmethod
    def remember(self, memory: Any, written: Sequence[Float[Tensor, "batch slots width"]]) -> Any:
        """The memory after a segment.

        Args:
            written: what each layer made of the tokens at its end, and last what the norm made of that.
        """

    def initial_state(self, batch_size: int) -> SegmentState:
        slots, width = self.segment_size - 1, self.input_size // self.heads
        keys = self._origin.new_zeros(batch_size, self.layers, slots, self.heads, width)
        position = keys.new_zeros(batch_size, dtype=torch.int64)
        return SegmentState(self.nothing(batch_size), keys, keys.clone(), position)

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: SegmentState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], SegmentState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        if not inputs.shape[1]:
            return inputs, state
        inputs = torch.where(real.unsqueeze(-1), inputs, 0)  # padding may hold anything, NaN included
        if self.naive:
            outputs, state = self._step_by_step(inputs, state, real, fresh)
        else:
            places = chunk_places(real, reset, state.position, self.segment_size)
            outputs, state = self._by_segments(inputs, state, places)
        return torch.where(real.unsqueeze(-1), outputs, 0), state

    def _by_segments(
        self, inputs: Tensor, state: SegmentState, places: ChunkPlaces
    ) -> tuple[Tensor, SegmentState]:
        """Segment after segment, the steps of each at once."""
        memory, rows = state.memory, torch.arange(len(inputs), device=inputs.device)
        # Whether steps are held is known only by looking, which a compiled graph cannot.
        goes_on = torch.compiler.is_compiling() or bool(state.position.any())
        held = Held(*state[1:]) if goes_on else self._none_held(len(inputs))
        outputs: list[Tensor] = []
        keys: list[Tensor] = []
        values: list[Tensor] = []
        pieces = into_chunks(inputs.unsqueeze(2), places).squeeze(2)
        for number, (piece, real) in enumerate(zip(pieces.unbind(0), places.real.unbind(0), strict=True)):
            if places.any_fresh[number]:
                memory = reset_rows(memory, places.fresh[number], self.nothing(1))
            output, key, value, after = self._run(memory, piece, real, held, places.any_full[number])
            if places.any_full[number]:
                memory = where_rows(places.full[number], after, memory)
            for parts, part in ((outputs, output), (keys, key), (values, value)):
                parts.append(part)
            held = self._none_held(len(inputs))
        memory = reset_rows(memory, places.ended, self.nothing(1))
        # A row's last segment begins with the steps that were held, or with none.
        offset = torch.where((places.last == 0) & ~places.ended, state.position, 0)
        made = (torch.stack(parts)[places.last, rows] for parts in (keys, values))
        held_keys, held_values = (
            _put(old, new.to(old.dtype), offset, places.position)
            for old, new in zip((state.keys, state.values), made, strict=True)
        )
        read = out_of_chunks(torch.stack(outputs).unsqueeze(2), places).squeeze(2)
        return read, SegmentState(memory, held_keys, held_values, places.position)

    def _step_by_step(
        self, inputs: Tensor, state: SegmentState, real: Tensor, fresh: Tensor
    ) -> tuple[Tensor, SegmentState]:
        """One step after the other, by the definition: after each it is asked whether a segment has ended."""
        outputs, initial = [], self.initial_state(1)
        for step, known, starts in zip(inputs.unbind(1), real.unbind(1), fresh.unbind(1), strict=True):
            state = reset_rows(state, starts, initial)
            one = torch.ones_like(known).unsqueeze(1)
            output, key, value, memory = self._run(
                state.memory, step.unsqueeze(1), one, Held(*state[1:]), ends=True
            )
            outputs.append(output)
            position = state.position + 1
            keys, values = (
                _put(old, new.to(old.dtype), state.position, position)
                for old, new in ((state.keys, key), (state.values, value))
            )
            going_on = SegmentState(state.memory, keys, values, position)
            ending = self.initial_state(len(inputs))._replace(memory=memory)
            after = where_rows(position == self.segment_size, ending, going_on)
            state = where_rows(known, after, state)
        return torch.cat(outputs, dim=1), state

    def _run(
        self, memory: Any, inputs: Tensor, real: Bool[Tensor, "batch columns"], held: Held, ends: bool
    ) -> tuple[Tensor, Tensor, Tensor, Any]:
        """Steps of one segment: the outputs, their keys and values in all layers, the memory if it ends.

        Args:
            real: which of the inputs are steps; the others come last, and nothing sees them.
            held: the steps of the segment before the inputs.
        """
        reads, writes = self.tokens(memory)
        writes = writes if ends else writes[:, :0]
        parts = [part.to(inputs.dtype) for part in (reads, inputs, writes)]
        sizes = [part.shape[1] for part in parts]
        positions = self._positions(sizes, held.position)
        visible = _visible(sizes, real, held)
        hidden = torch.cat(parts, dim=1)
        keys, values, written = [], [], []
        before = zip(held.keys.unbind(1), held.values.unbind(1), strict=True)
        for number, (layer, past) in enumerate(zip(self.stack, before, strict=True)):
            hidden, key, value = layer(self.recall(memory, number, hidden), positions, visible, past)
            keys.append(key.split(sizes, dim=1)[1])
            values.append(value.split(sizes, dim=1)[1])
            written.append(hidden.split(sizes, dim=1)[2])
        _, outputs, last = self.norm(hidden).split(sizes, dim=1)
        after = self.remember(memory, [*written, last]) if ends else memory
        return outputs, torch.stack(keys, dim=1), torch.stack(values, dim=1), after

    def _positions(self, sizes: list[int], position: Int[Tensor, " batch"]) -> Int[Tensor, "batch time"]:
        """What is read first, then the segment, then what is written, wherever in it the inputs stand."""
        reads, columns, writes = (torch.arange(size, device=position.device) for size in sizes)
        count = len(reads)
        parts = (
            reads.expand(len(position), -1),
            count + position.unsqueeze(1) + columns,
            (count + self.segment_size + writes).expand(len(position), -1),
        )
        return torch.cat(parts, dim=1)

    def _none_held(self, batch: int) -> Held:
        """The segment's beginning."""
        keys = self._origin.new_zeros(batch, self.layers, 0, self.heads, self.input_size // self.heads)
        return Held(keys, keys, keys.new_zeros(batch, dtype=torch.int64))


def _visible(
    sizes: list[int], real: Bool[Tensor, "batch columns"], held: Held
) -> Bool[Tensor, "batch 1 time seen"]:
    """What each of the tokens sees of the steps held, and of the tokens."""
    reads, columns, writes = sizes
    slots = torch.arange(held.keys.shape[2], device=real.device)
    # Nothing is seen before its turn: what is read, what is held, step after step, what is written.
    turn = torch.arange(columns, device=real.device) + 2
    turn = torch.cat([turn.new_zeros(reads), turn, turn.new_full((writes,), columns + 2)])
    there = [slots < held.position.unsqueeze(1), real.new_ones(len(real), reads), real]
    known = torch.cat([*there, real.new_ones(len(real), writes)], dim=1).unsqueeze(1)
    in_turn = torch.cat([torch.ones_like(slots), turn]) <= turn.unsqueeze(1)
    # What is no step sees itself, since a row without anything to see is not a number.
    itself = torch.eye(len(turn), dtype=torch.bool, device=real.device)
    return (in_turn & known | functional.pad(itself, (len(slots), 0))).unsqueeze(1)


def _put(
    held: Float[Tensor, "batch layers slots heads keys"],
    made: Float[Tensor, "batch layers columns heads keys"],
    offset: Int[Tensor, " batch"],
    position: Int[Tensor, " batch"],
) -> Float[Tensor, "batch layers slots heads keys"]:
    """The slots up to `position`: what was held, and from `offset` on what was made; zeros after."""
    slots = torch.arange(held.shape[2], device=held.device)
    column = (slots - offset.unsqueeze(1)).clamp(0, made.shape[2] - 1)
    shape = (len(held), 1, held.shape[2], 1, 1)
    chosen = made.gather(2, column.view(shape).expand_as(held))
    old, filled = (slots < end.unsqueeze(1) for end in (offset, position))
    kept = torch.where(old.view(shape), held, chosen)
    return torch.where(filled.view(shape), kept, 0)
