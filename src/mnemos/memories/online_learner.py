"""What memories have in common whose networks learn from every step, a chunk of steps at a time."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mnemos.memories.multi_head import MultiHeadMemory
from mnemos.ops.chunk_places import chunk_places, into_chunks, out_of_chunks
from mnemos.ops.looking import may_look
from mnemos.tree import reset_rows, where_rows


class Told(NamedTuple):
    """Steps: what is asked before each, what it tells, and how that is learned."""

    queries: Float[Tensor, "batch heads steps keys"]
    keys: Float[Tensor, "batch heads steps keys"]
    values: Float[Tensor, "batch heads steps width"]
    ways: Float[Tensor, "batch heads steps ways"]


class OnlineLearner(MultiHeadMemory):
    """A memory in the weights of networks that learn from every step, by what was known as its chunk began.

    Chunks are part of the definition. They count the real steps of a document, and where a row stands in its
    chunk is part of the state (`position`), so that any split of a sequence gives the same.

    A subclass says what one chunk does to rows that all stand at its beginning or somewhere within it, what
    one step does by the definition, and what the end of a chunk does.
    """

    chunk_size: int

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: Any = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], Any]:
        state, real, _ = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(-1), inputs, 0)  # padding may hold anything, NaN included
        queries, keys, values, gates = self.project(inputs)
        read, state = self.learn(state, queries, keys, values, {**gates}, real, reset)
        return torch.where(real.unsqueeze(-1), self.emit(read), 0), state

    def learn(
        self,
        state: Any,
        queries: Tensor | None,
        keys: Tensor,
        values: Tensor,
        gates: dict[str, Tensor | None],
        real: Bool[Tensor, "batch time"],
        reset: Bool[Tensor, "batch time"] | None,
    ) -> tuple[Tensor, Any]:
        """What was read before every step, (batch, time, width), and the state after the last.

        Args:
            queries: None where nothing is asked.
        """
        if not real.shape[1]:
            return values.to(self.dtype), state
        with torch.autocast(keys.device.type, enabled=False):
            key, value = self.address(self.split(keys).to(self.dtype)), self.split(values).to(self.dtype)
            asked = key if queries is None else self.address(self.split(queries).to(self.dtype))
            told = (asked, key, value, self.ways(gates, value))
            read, state = (self._loop if self.naive else self._chunks)(state, told, real, reset)
        return read.flatten(2), state

    @abstractmethod
    def address(self, keys: Float[Tensor, "*shape keys"]) -> Float[Tensor, "*shape keys"]:
        """The keys and queries of each head, as the networks are given them."""

    @abstractmethod
    def ways(
        self, gates: dict[str, Tensor | None], like: Float[Tensor, "batch time heads width"]
    ) -> Float[Tensor, "batch time heads ways"]:
        """Everything that says how a step is learned, side by side."""

    @abstractmethod
    def chunk(
        self, state: Any, told: Told, real: Bool[Tensor, "batch steps"]
    ) -> tuple[Float[Tensor, "batch heads steps width"], Any]:
        """What is read before each step of one chunk, and the state after them; the real ones come first."""

    @abstractmethod
    def step(self, state: Any, told: Told) -> tuple[Float[Tensor, "batch heads one width"], Any]:
        """The same for one step, by the definition."""

    @abstractmethod
    def complete(self, state: Any) -> Any:
        """The state when a chunk has ended."""

    def _chunks(
        self, state: Any, told: tuple[Tensor, ...], real: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Chunk after chunk, the steps of each at once."""
        places = chunk_places(real, reset, state.position % self.chunk_size, self.chunk_size)
        parts = [into_chunks(x, places).unbind(0) for x in told]
        initial, reads = self.initial_state(1), []
        there = places.real.any(2)
        # To choose rows copies every weight; where all rows are chosen it need not be, if one can look.
        known = may_look(real)
        all_there, all_full = (x.all(1).tolist() if known else [False] * len(x) for x in (there, places.full))
        for number, chunk in enumerate(zip(*parts, strict=True)):
            if places.any_fresh[number]:
                state = reset_rows(state, places.fresh[number], initial)
            read, after = self.chunk(state, Told(*chunk), places.real[number])
            reads.append(read)
            if places.any_full[number]:
                ended = self.complete(after)
                after = ended if all_full[number] else where_rows(places.full[number], ended, after)
            state = after if all_there[number] else where_rows(there[number], after, state)
        if reset is not None:
            state = reset_rows(state, places.ended, initial)
        return out_of_chunks(torch.stack(reads), places), state

    def _loop(
        self, state: Any, told: tuple[Tensor, ...], real: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Any]:
        """Step after step, by the definition."""
        fresh = torch.zeros_like(real) if reset is None else reset
        initial, reads = self.initial_state(1), []
        for known, starts, *parts in zip(*(x.unbind(1) for x in (real, fresh, *told)), strict=True):
            state = reset_rows(state, starts, initial)
            read, after = self.step(state, Told(*(x.unsqueeze(2) for x in parts)))
            reads.append(read)
            ended = after.position % self.chunk_size == 0
            state = where_rows(known, where_rows(ended, self.complete(after), after), state)
        return torch.cat(reads, dim=2).transpose(1, 2), state
