"""A memory in the weights of a small network that is trained on what it is told, while it is used."""

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mnemos.memories.base import Reading
from mnemos.memories.inner_network import Error, InnerNetwork
from mnemos.memories.memoriser_steps import (
    MemoriserState,
    Steps,
    Surprises,
    at_present,
    at_start,
    begun,
    carry,
    complete,
    either,
    extended,
    joined,
    limited,
    mixed,
    plain,
    stepped,
    summed,
    surprises,
    told,
    weighed,
    with_weights,
)
from mnemos.memories.multi_head import MultiHeadMemory
from mnemos.ops.chunk_places import chunk_places, into_chunks, out_of_chunks, spans
from mnemos.ops.looking import may_look
from mnemos.ops.test_time import MixedLayers, continued, moment, moments, no_mixing, step_mixing
from mnemos.tree import map_tensors, reset_rows, where_rows

GATES = ("rate", "decay", "momentum")  # θ, α, η


class Memoriser(MultiHeadMemory):
    """What the memories of this family share; their equations are in `mnemos.ops.test_time`.

    A step is one descent on the loss between what the network answers to the step's key and the step's
    value. Its gradient is taken at the weights with which the chunk began, t' = t - t mod chunk_size: the
    chunk is part of the definition, and of one step it is the plain rule. It counts the real steps of a
    document, so that any split of a sequence gives the same.

    Like every addressable memory, `forward` reads before it writes: a step gets what W_{t-1} answers to q_t.

    In `write` and `read`, a key is the keys of all heads side by side, and so is a value; nothing is
    projected. The slots of a reading are what goes into the last layer (of a matrix, the coordinates of the
    query), numbered through all heads.

    A subclass sets the attributes below and projects.
    """

    chunk_size: int
    largest_surprise: float  # a longer gradient of a step is scaled down to this length
    has_momentum: bool
    network: InnerNetwork
    error: Error

    def initial_state(self, batch_size: int) -> MemoriserState:
        room = self.chunk_size
        shapes = [weight.shape[1:] for weight in self.network.weights]
        weights = tuple(self.zeros(batch_size, *shape) for shape in shapes)
        nothing = Surprises(
            tuple(self.zeros(batch_size, room, into) for into, _ in shapes),
            tuple(self.zeros(batch_size, room, out) for _, out in shapes),
        )
        mixing = no_mixing(self.zeros(batch_size, room))
        momenta = weights if self.has_momentum else ()
        position = self._origin.new_zeros(batch_size, dtype=torch.int64)
        return MemoriserState(weights, momenta, self.zeros(batch_size) + 1, nothing, mixing, position)

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: MemoriserState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], MemoriserState]:
        state, real, _ = self.begin(inputs, state, mask, reset)
        if mask is not None:  # padding may hold anything, NaN included
            inputs = torch.where(real.unsqueeze(-1), inputs, 0)
        queries, keys, values, gates = self.project(inputs)
        read, state = self._run(state, queries, keys, values, {**gates}, mask, reset)
        outputs = self.emit(read)
        return outputs if mask is None else torch.where(real.unsqueeze(-1), outputs, 0), state

    @abstractmethod
    def address(self, keys: Float[Tensor, "*shape keys"]) -> Float[Tensor, "*shape keys"]:
        """The keys and queries of each head, as the network is given them."""

    def write(
        self,
        state: MemoriserState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch time *heads"] | None = None,
        decay: Float[Tensor, "batch time *heads"] | None = None,
        momentum: Float[Tensor, "batch time *heads"] | None = None,
    ) -> MemoriserState:
        """Learns pairs one after the other.

        Args:
            strength: times the rate. With strength 0 a pair is not written: nothing decays, and no step is
                counted.
            rate: θ, how far the weights go against the gradient; None is 1/2, with which a matrix and chunks
                of one step take over a value exactly. One for all heads or one for each, as the next two.
            decay: α in 0 to 1, how much of the weights goes; None is 0.
            momentum: η in 0 to 1, how much of the last change is repeated; None is 0.
        """
        rate, mask = weighed(keys, strength, mask, rate)
        if mask is not None:
            keys, values = (torch.where(mask.unsqueeze(-1), x, 0) for x in (keys, values))
        gates = dict(zip(GATES, (rate, decay, momentum), strict=True))
        return self._run(state, None, keys, values, gates, mask, None)[1]

    def read(self, state: MemoriserState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """What the network answers with the weights as they stand."""
        with torch.autocast(queries.device.type, enabled=False):
            asked = self.address(self.split(queries).to(self.dtype)).transpose(1, 2)
            values, inputs = self.network.answer(at_present(state, self.network.initial), asked)
        weights = inputs.transpose(1, 2).flatten(2)
        slots = torch.arange(weights.shape[2], device=weights.device).expand(weights.shape)
        return Reading(values.transpose(1, 2).flatten(2), weights, slots)

    def _run(
        self,
        state: MemoriserState,
        queries: Tensor | None,
        keys: Tensor,
        values: Tensor,
        gates: dict[str, Tensor | None],
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, MemoriserState]:
        """What was read, (batch, time, width), and the state; without queries nothing is read."""
        if keys.shape[1] == 0:
            return values.to(state.left), state
        if not self.has_momentum and gates.get("momentum") is not None:
            raise ValueError(f"momentum must be None: {type(self).__name__} has none")
        with torch.autocast(keys.device.type, enabled=False):
            asked = None if queries is None else self.address(self.split(queries).to(self.dtype))
            key, value = self.address(self.split(keys).to(self.dtype)), self.split(values).to(self.dtype)
            rate, decay, momentum = (self.gate(gates.get(name), value) for name in GATES)
            steps = Steps(key, value, torch.stack([rate, 1 - decay, momentum], dim=-1))
            run = self._loop if self.naive else self._step if keys.shape[1] == 1 else self._chunks
            read, state = run(state, asked, steps, mask, reset)
        return read.flatten(2), state

    def _step(
        self,
        state: MemoriserState,
        queries: Tensor | None,
        steps: Steps,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, MemoriserState]:
        """A single step: nothing is moved into a grid, and weights are made only where it ends a chunk."""
        network, initial = self.network, self.network.initial
        if reset is not None:
            state = reset_rows(state, reset.squeeze(1), self.initial_state(1))
        # The query sees the present weights, the key those of the chunk's start: two lines of one product.
        keys, values, ways = (x.transpose(1, 2) for x in steps)
        asked = keys if queries is None else queries.transpose(1, 2)
        layers = at_present(state, initial, and_start=True)
        inputs, sums = network.trace(layers, torch.cat([asked, keys], dim=2))
        read = network.out(asked, sums[-1].split(1, dim=2)[0])
        inputs, sums = ([x.split(1, dim=2)[1] for x in parts] for parts in (inputs, sums))
        slopes = network.slopes(at_start(state, initial), keys, sums, values, self.error)
        rate, kept, momentum = ways.unbind(-1)
        after = extended(state, limited(inputs, slopes, rate, self.largest_surprise), kept, momentum)
        full = after.position == self.chunk_size
        if torch.compiler.is_compiling() or full.any():
            after = either(full, complete(after), after)
        return read.transpose(1, 2), after if mask is None else where_rows(mask.squeeze(1), after, state)

    def _chunks(
        self,
        state: MemoriserState,
        queries: Tensor | None,
        steps: Steps,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, MemoriserState]:
        """Chunk after chunk, the steps of each at once; weights are made only after a span of several."""
        real = steps.keys.new_ones(steps.keys.shape[:2], dtype=torch.bool) if mask is None else mask
        places = chunk_places(real, reset, state.position, self.chunk_size)
        keys, values, ways = (into_chunks(x, places).unbind(0) for x in steps)
        asked = keys if queries is None else into_chunks(queries, places).unbind(0)
        columns = keys[0].shape[2]
        weights = begun(state, self.network.initial)
        reads, chunks = [], []
        for start, end in spans(places, self._span):
            if places.any_fresh[start]:
                initial = begun(self.initial_state(1), self.network.initial)
                weights = reset_rows(weights, places.fresh[start], initial)
            total = (end - start) * columns
            _, kept, momentum = torch.cat(ways[start:end], dim=2).unbind(-1)
            real_steps = torch.cat(places.real[start:end].unbind(0), dim=1).unsqueeze(1).expand_as(kept)
            mixing = step_mixing(kept, momentum, real_steps)
            seen, before = map_tensors(lambda x: x[:, :, :0], state.surprises), 0
            if start == 0:  # the steps that the state holds come before those of the first chunk
                if not may_look(real) or state.position.any():
                    seen, before = state.surprises, self.chunk_size
                mixing = continued(moments(state.mixing, 0, 1, before), mixing)
            for number in range(start, end):
                done = (number - start) * columns
                layers = plain(weights)
                if number > start:
                    layers = mixed(weights, moments(mixing, done, done + 1, before + done), seen)
                rate = ways[number][..., 0]
                chunks.append(self._surprises(layers, keys[number], values[number], rate))
                seen = joined(seen, chunks[-1])
            if queries is not None:  # each read is before its step
                layers = mixed(weights, moments(mixing, 0, total, before + total), seen)
                reads.append(self.network.answer(layers, torch.cat(asked[start:end], dim=2))[0])
            if any(places.any_full[start:end]):
                full = places.full[start:end].sum(0)
                ended = where_rows(full > 0, moment(mixing, full * columns), no_mixing(mixing.steps[:, :, 0]))
                weights = told(weights, ended, seen)
        if any(places.any_full) or any(places.any_fresh):
            moved = with_weights(state, weights, self.network.initial)
            state = either((places.full | places.fresh).any(0), moved, state)
        if reset is not None:
            state = reset_rows(state, places.ended, self.initial_state(1))
        state = carry(state, places, chunks, ways)
        if queries is None:
            return steps.values, state
        read = torch.cat(reads, dim=2).unflatten(2, (len(keys), -1)).movedim(2, 0)
        return out_of_chunks(read, places), state

    def _loop(
        self,
        state: MemoriserState,
        queries: Tensor | None,
        steps: Steps,
        mask: Tensor | None,
        reset: Tensor | None,
    ) -> tuple[Tensor, MemoriserState]:
        """Step after step, by the definition: all weights are made."""
        nowhere = steps.keys.new_zeros(steps.keys.shape[:2], dtype=torch.bool)
        real, fresh = ~nowhere if mask is None else mask, nowhere if reset is None else reset
        asked = steps.keys if queries is None else queries
        new, reads = self.initial_state(1), []
        for known, starts, *parts in zip(*(x.unbind(1) for x in (real, fresh, asked, *steps)), strict=True):
            state = reset_rows(state, starts, new)
            query, key, value, way = (x.unsqueeze(2) for x in parts)
            rate, kept, momentum = way.unbind(-1)
            start = begun(state, self.network.initial)
            now = summed(start, state)
            reads.append(self.network.answer(plain(now), query)[0])
            step = self._surprises(plain(start), key, value, rate)
            after = extended(state, step, kept, momentum)
            weights = stepped(now, step, kept, momentum)
            ended = with_weights(self.initial_state(len(known)), weights, self.network.initial)
            after = where_rows(after.position == self.chunk_size, ended, after)
            state = where_rows(known, after, state)
        return torch.cat(reads, dim=2).transpose(1, 2), state

    def _surprises(self, layers: MixedLayers, keys: Tensor, values: Tensor, rate: Tensor) -> Surprises:
        return surprises(self.network, self.error, self.largest_surprise, layers, keys, values, rate)

    @property
    def _span(self) -> int:
        """Chunks after which weights are made. Products with weights are the dearer the fewer steps share
        them, those among steps the more there are."""
        return max(1, 64 // self.chunk_size)
