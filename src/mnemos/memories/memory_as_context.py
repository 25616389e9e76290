"""Titans' first wiring: what a memory knows of the past stands before attention as context."""

from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import AddressableMemory, Memory, check_sizes
from mnemos.memories.wiring import MemoryGate, PersistentTokens, check_width, set_naive
from mnemos.ops.chunk_places import ChunkPlaces, chunk_places, into_chunks, out_of_chunks
from mnemos.ops.rotary import rotate
from mnemos.tree import reset_rows, where_rows


class MemoryAsContextState(NamedTuple):
    """The present segment so far, and the memory twice: before the segment, and with what came since.

    Of each step there are two keys and values: of what the memory answered to it, and of the step itself.
    """

    keys: Float[Tensor, "batch slots two heads keys"]  # turned by their place in the segment
    values: Float[Tensor, "batch slots two heads keys"]
    position: Int[Tensor, " batch"]  # steps of the segment so far, below its length
    before: Any  # M_{t-1}
    memory: Any


@final
class MemoryAsContext(Memory):
    """MAC: attention within a segment, to what a memory answers to it, and the memory is told what it saw.

    Behrouz, Zhong & Mirrokni 2025, "Titans: Learning to Memorize at Test Time", section 4.1. Of a document
    the steps are counted off in segments S. With M_{t-1} as it stood before the segment (eqs. 21 to 25),

        h = M*_{t-1}(S W_Q)        y = Attn([P || h || S])        M_t = M_{t-1}(y)        o = y ⊗ M*_t(y)

    in this order: first the memory is read, then attention sees what it answered, then the memory is told
    what attention made of it. W_Q is the memory's own projection; the gate is a `MemoryGate`.

    A step must not see what comes after it. So of the memory's answers it sees those to itself and to earlier
    steps of its segment, as of the segment itself; and what is read last is read from a memory that was told
    the y of earlier steps, like every forward pass of an `AddressableMemory`. Positions are those in
    [P || h || S], as the text has them, and begin anew with every segment (rotary, Su et al. 2021).

    Residual connections, and what stands around a memory in a network, are left to that network.

    Args:
        memory: of one width for inputs and outputs, a multiple of 2 x heads.
        segment: real steps of a document in one segment (the paper's C).
        heads: of the attention.
        persistent: how many persistent tokens P (the paper's N_p).
        base: of the rotary positions.
    """

    def __init__(
        self,
        memory: AddressableMemory,
        segment: int,
        heads: int = 1,
        persistent: int = 4,
        base: float = 10_000.0,
    ) -> None:
        super().__init__()
        check_width(memory)
        check_sizes(segment=segment, heads=heads)
        width = memory.input_size
        if width % (2 * heads):
            raise ValueError(f"memory must be a multiple of 2 x heads wide, not {width} for {heads} heads")
        self.input_size = self.output_size = width
        self.memory, self.segment, self.heads = memory, segment, heads
        self.persistent, self.base = persistent, base
        self.tokens = PersistentTokens(persistent, width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.gate = MemoryGate(width)
        self._naive = False

    @property
    def naive(self) -> bool:
        """Whether it goes step by step, and the memory takes its plain loop."""
        return self._naive

    @naive.setter
    def naive(self, naive: bool) -> None:
        self._naive = naive
        set_naive(naive, self.memory)

    def initial_state(self, batch_size: int) -> MemoryAsContextState:
        keys = self._origin.new_zeros(
            batch_size, self.segment - 1, 2, self.heads, self.input_size // self.heads
        )
        memory = self.memory.initial_state(batch_size)
        return MemoryAsContextState(
            keys, keys.clone(), keys.new_zeros(batch_size, dtype=torch.int64), memory, memory
        )

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: MemoryAsContextState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], MemoryAsContextState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(2), inputs, 0)  # padding may hold anything, NaN included
        if not inputs.shape[1]:
            return inputs, state
        if self._naive:
            outputs, state = self._steps(inputs, state, real, fresh)
        else:
            outputs, state = self._segments(inputs, state, real, reset)
        return torch.where(real.unsqueeze(2), outputs, 0), state

    def _segments(
        self, inputs: Tensor, state: MemoryAsContextState, real: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, MemoryAsContextState]:
        """Segment after segment, the steps of each at once."""
        places = chunk_places(real, reset, state.position, self.segment)
        segments = into_chunks(inputs.unsqueeze(2), places).squeeze(2).unbind(0)
        initial = self.memory.initial_state(1)
        before, memory = state.before, state.memory
        outputs, keys, values = [], [], []
        for number, steps in enumerate(segments):
            if places.any_fresh[number]:
                before = reset_rows(before, places.fresh[number], initial)
                memory = reset_rows(memory, places.fresh[number], initial)
            column = torch.arange(steps.shape[1], device=steps.device).expand(len(steps), -1)
            place = column if number else column + state.position.unsqueeze(1)
            key, value = self._contents(before, steps, place)
            query = self._heads(self.query(steps), self.persistent + self.segment + place)
            held = (state.keys, state.values, state.position) if number == 0 else None
            seen = self.output(self._attend(query, key, value, held).flatten(2))
            answers, memory = self.memory(seen, memory, mask=places.real[number])
            outputs.append(self.gate(seen, answers))
            keys.append(key)
            values.append(value)
            if places.any_full[number]:
                before = where_rows(places.full[number], memory, before)
        after = state._replace(
            keys=self._carried(state.keys, state.position, torch.stack(keys), places),
            values=self._carried(state.values, state.position, torch.stack(values), places),
            position=places.position,
            before=before,
            memory=memory,
        )
        if reset is not None:
            after = reset_rows(after, places.ended, self.initial_state(1))
        return out_of_chunks(torch.stack(outputs).unsqueeze(2), places).squeeze(2), after

    def _contents(self, before: Any, steps: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of what the memory answers to the steps, h, and of the steps."""
        answers = self.memory.emit(self.memory.read(before, self.memory.project(steps).queries).values)
        both = torch.cat([answers.to(steps.dtype), steps], dim=1)
        answer_place = self.persistent + place
        turns = torch.cat([answer_place, answer_place + self.segment], dim=1)
        keys, values = self._heads(self.key(both), turns), self._heads(self.value(both))
        time = steps.shape[1]
        return torch.stack(keys.split(time, 1), dim=2), torch.stack(values.split(time, 1), dim=2)

    def _attend(
        self,
        queries: Float[Tensor, "batch time heads keys"],
        keys: Float[Tensor, "batch time two heads keys"],
        values: Float[Tensor, "batch time two heads keys"],
        held: tuple[Tensor, Tensor, Tensor] | None,
    ) -> Float[Tensor, "batch time heads keys"]:
        """What steps see of the persistent tokens, of the segment that the state holds, and of each other."""
        time = queries.shape[1]
        visible = queries.new_ones(time, time, dtype=torch.bool).tril().expand(len(queries), -1, -1)
        if held is not None:
            slots = torch.arange(self.segment - 1, device=queries.device)
            earlier = (slots < held[2].unsqueeze(1)).unsqueeze(1).expand(-1, time, -1)
            visible = torch.cat([earlier, visible], dim=2)
            keys, values = torch.cat([held[0], keys], dim=1), torch.cat([held[1], values], dim=1)
        keys, values = (x.transpose(1, 2) for x in self._after_tokens(keys, values))
        visible = functional.pad(visible.repeat_interleave(2, dim=2), (self.persistent, 0), value=True)
        attended = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, attn_mask=visible.unsqueeze(1)
        )
        return attended.transpose(1, 2)

    def _after_tokens(
        self,
        keys: Float[Tensor, "batch time two heads keys"],
        values: Float[Tensor, "batch time two heads keys"],
    ) -> tuple[Float[Tensor, "batch seen heads keys"], Float[Tensor, "batch seen heads keys"]]:
        """Keys and values of a segment, after those of the persistent tokens."""
        tokens = self.tokens.tokens.expand(len(keys), -1, -1)
        turns = torch.arange(self.persistent, device=keys.device).expand(len(keys), -1)
        first = self._heads(self.key(tokens), turns)
        return (
            torch.cat([first, keys.flatten(1, 2)], dim=1),
            torch.cat([self._heads(self.value(tokens)), values.flatten(1, 2)], dim=1),
        )

    def _carried(
        self,
        held: Float[Tensor, "batch slots *contents"],
        position: Int[Tensor, " batch"],
        new: Float[Tensor, "segments batch columns *contents"],
        places: ChunkPlaces,
    ) -> Float[Tensor, "batch slots *contents"]:
        """Of each row's last segment, as far as it is not complete, what is held of its steps."""
        rows = torch.arange(len(held), device=held.device)
        slots = torch.arange(held.shape[1], device=held.device)
        offset = torch.where(places.last == 0, position, 0).unsqueeze(1)
        column = (slots - offset).clamp(0, new.shape[2] - 1)
        comes = (slots >= offset) & (slots < places.position.unsqueeze(1))
        stays = ((places.last == 0) & ~places.full[places.last, rows]).unsqueeze(1) & ~comes
        shape = (*comes.shape, *[1] * (held.dim() - 2))
        chosen = new[places.last, rows][rows.unsqueeze(1), column].to(held.dtype)
        return torch.where(comes.view(shape), chosen, torch.where(stays.view(shape), held, 0))

    def _steps(
        self, inputs: Tensor, state: MemoryAsContextState, real: Tensor, fresh: Tensor
    ) -> tuple[Tensor, MemoryAsContextState]:
        """Step after step: the specification of what `_segments` does at once."""
        initial, outputs = self.initial_state(1), []
        slots = torch.arange(self.segment, device=inputs.device)
        for step, known, starts in zip(inputs.split(1, 1), real.unbind(1), fresh.unbind(1), strict=True):
            state = reset_rows(state, starts, initial)
            place = state.position.unsqueeze(1)
            contents = self._contents(state.before, step, place)
            now = (slots == place)[:, :, None, None, None]
            keys, values = (
                torch.where(now, new, functional.pad(held, (0, 0, 0, 0, 0, 0, 0, 1)))
                for new, held in zip(contents, (state.keys, state.values), strict=True)
            )
            query = self._heads(self.query(step), self.persistent + self.segment + place).squeeze(1)
            all_keys, all_values = self._after_tokens(keys, values)
            scores = torch.einsum("bhk,bshk->bhs", query, all_keys) / query.shape[2] ** 0.5
            later = functional.pad((slots > place).repeat_interleave(2, dim=1), (self.persistent, 0))
            weights = scores.masked_fill(later.unsqueeze(1), -torch.inf).softmax(2)
            read = torch.einsum("bhs,bshk->bhk", weights, all_values)
            seen = self.output(read.flatten(1)).unsqueeze(1)
            answers, memory = self.memory(seen, state.memory)
            outputs.append(self.gate(seen, answers))
            going_on = state._replace(
                keys=keys[:, :-1], values=values[:, :-1], position=state.position + 1, memory=memory
            )
            ending = self.initial_state(len(inputs))._replace(before=memory, memory=memory)
            after = where_rows(going_on.position == self.segment, ending, going_on)
            state = where_rows(known, after, state)
        return torch.cat(outputs, dim=1), state

    def _heads(self, x: Tensor, place: Tensor | None = None) -> Float[Tensor, "*rows heads keys"]:
        """Divided into heads, and turned by its place."""
        x = x.unflatten(-1, (self.heads, -1))
        return x if place is None else rotate(x, place, self.base)
