"""Sparse access memory: a memory with heads whose steps touch few slots, however many there are.

Rae, Hunt, Harley, Danihelka, Senior, Wayne, Graves & Lillicrap 2016, "Scaling Memory-Augmented Neural
Networks with Sparse Reads and Writes", section 3.
"""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.access_order import AccessOrder
from mnemos.memories.base import check_sizes
from mnemos.memories.slot_search import ExactSearch, IndexedSearch
from mnemos.memories.stepped import SteppedMemory, Stretch
from mnemos.memories.working_table import WorkingTable
from mnemos.ops.sparse_access import erase_and_add, least_recent_slots, nearest_slots, slot_weights
from mnemos.tree import reset_rows, where_rows

ACCESSED = 0.005  # δ: a slot that is read or written with a greater weight counts as accessed


class LastRead(NamedTuple):
    """What a step needs to know of the one before, beside the slots themselves."""

    slots: Int[Tensor, "batch heads found"]  # s_i of w^R_(t-1)
    weights: Float[Tensor, "batch heads found"]  # w^R_(t-1) at these slots
    clock: Int[Tensor, " batch"]  # real steps so far


class SAMState(NamedTuple):
    memory: Float[Tensor, "batch slots width"]  # M_t
    last_access: Int[Tensor, "batch slots"]  # the step, times the number of slots, plus the slot: all differ
    read: LastRead


class _Interface(NamedTuple):
    """What a controller says in a step."""

    words: Float[Tensor, "batch heads width"]  # a_t
    queries: Float[Tensor, "batch heads width"]  # q_t
    strengths: Float[Tensor, "batch heads"]  # β_t, 1 and above
    gates: Float[Tensor, "batch heads"]  # α_t
    again: Float[Tensor, "batch heads"]  # γ_t: to the slots that were read last, not to a new one


@final
class SAM(SteppedMemory):
    """Reads its most similar slots, writes to those it read last or to the least recently accessed one.

    Every head has a word a to write, a query q with its strength β, and two gates; I^U is the least recently
    accessed slot, which is emptied before, and another one for every head. Eq. 1 to 6:

        w^W_t = α (γ w^R_(t-1) + (1 - γ) I^U_t),  M_t = (1 - I^U_t) M_(t-1) + w^W_t aᵀ
        r_t = Σ w^R_t(s_i) M_t(s_i),  w^R_t = softmax over the `top_k` largest of β cos(q, M_t)

    An empty slot is not found: where fewer than `top_k` hold something, fewer are read.

    A call over many steps copies the slots once, and then works in place: time a step, beyond the search, and
    storage for the backward pass do not depend on the number of slots. A call of one step still copies, since
    the state it was given stays as it is; so give it stretches. `naive` makes a new table at every step.

    Args:
        width: of a slot, a word and a query; the output holds `heads` of these.
        heads: each of them reads and writes.
        top_k: K, slots that a head reads.
        probes: lists of an index in which a head looks for them, of about 2 √slots; None compares with every
            slot. It needs faiss, and is for hundreds of thousands of slots. `naive` compares with every slot.
    """

    def __init__(
        self,
        input_size: int,
        slots: int = 1024,
        width: int = 32,
        heads: int = 4,
        top_k: int = 4,
        probes: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, slots=slots, width=width, heads=heads, top_k=top_k)
        check_sizes(probes=1 if probes is None else probes)
        self.input_size, self.slots, self.width = input_size, slots, width
        self.heads, self.top_k, self.probes = heads, top_k, probes
        self.output_size = heads * width
        self.naive = False
        self.interface = nn.Linear(input_size, heads * (2 * width + 3))

    @property
    def found(self) -> int:
        """How many slots a head reads: `top_k`, or all of fewer."""
        return min(self.top_k, self.slots)

    def initial_state(self, batch_size: int) -> SAMState:
        """An empty memory of which nothing was read; its first slot is the least recently accessed.

        Its slots are one zero, expanded: they take no room until something is written.
        """
        new = self._origin.new_zeros
        order = torch.arange(self.slots, device=self._origin.device)
        shape = (batch_size, self.heads, self.found)
        return SAMState(
            new(1, 1, 1).expand(batch_size, self.slots, self.width),
            order.expand(batch_size, -1),
            LastRead(new(shape, dtype=torch.int64), new(shape), new(batch_size, dtype=torch.int64)),
        )

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        return self.interface(inputs)

    def step(
        self, prepared: Float[Tensor, "batch prepared"], state: SAMState
    ) -> tuple[Float[Tensor, "batch output"], SAMState]:
        with torch.autocast(prepared.device.type, enabled=False):  # half a mantissa does not tell slots apart
            given = self.split(prepared.to(state.memory))
            least = least_recent_slots(state.last_access, self.heads)
            slots, weights = self.places(given, least, state.read)
            changes = weights.unsqueeze(3) * given.words.unsqueeze(2)
            memory = erase_and_add(state.memory, least, slots.flatten(1), changes.flatten(1, 2))
            found = nearest_slots(memory, given.queries, self.found)
            rows = memory.gather(1, found.flatten(1).unsqueeze(2).expand(-1, -1, self.width))
            output, read = self.attend(given, rows.unflatten(1, found.shape[1:]), found, state.read)
            touched, stamps = self.stamps(slots, weights, read)
            last_access = state.last_access.scatter_reduce(1, touched, stamps, "amax")
        return output, SAMState(memory, last_access, read)

    def stretch(self, state: SAMState) -> Stretch | None:
        # torch.compile cannot trace work in place that autograd goes back through.
        plain = self.naive or torch.compiler.is_compiling()
        return None if plain else _InPlace(self, state)

    def split(self, prepared: Float[Tensor, "batch prepared"]) -> _Interface:
        """The interface vector, part by part."""
        parts = prepared.unflatten(-1, (self.heads, -1))
        words, queries, numbers = parts.split([self.width, self.width, 3], dim=-1)
        strengths, gates, again = numbers.unbind(-1)
        return _Interface(
            words, queries, 1 + functional.softplus(strengths), gates.sigmoid(), again.sigmoid()
        )

    def places(
        self, given: _Interface, least: Int[Tensor, "batch heads"], last: LastRead
    ) -> tuple[Int[Tensor, "batch heads written"], Float[Tensor, "batch heads written"]]:
        """w^W_t: the slots that are written, and with what weight."""
        old = (given.gates * given.again).unsqueeze(2) * last.weights
        new = (given.gates * (1 - given.again)).unsqueeze(2)
        return torch.cat([last.slots, least.unsqueeze(2)], dim=2), torch.cat([old, new], dim=2)

    def attend(
        self,
        given: _Interface,
        rows: Float[Tensor, "batch heads found width"],
        found: Int[Tensor, "batch heads found"],
        last: LastRead,
    ) -> tuple[Float[Tensor, "batch output"], LastRead]:
        """r_t and w^R_t, from the slots that were found and what they hold."""
        weights = slot_weights(given.queries, given.strengths, rows)
        output = (weights.unsqueeze(2) @ rows).flatten(1)
        # What holds nothing has no name: else it would depend on how the search goes.
        return output, LastRead(found.masked_fill(weights == 0, 0), weights, last.clock + 1)

    def stamps(
        self, slots: Tensor, weights: Tensor, read: LastRead
    ) -> tuple[Int[Tensor, "batch touched"], Int[Tensor, "batch touched"]]:
        """The slots that a step touched, and when: 0, before all time, if it hardly did."""
        touched = torch.cat([slots.flatten(1), read.slots.flatten(1)], dim=1)
        weight = torch.cat([weights.flatten(1), read.weights.flatten(1)], dim=1)
        return touched, (read.clock.unsqueeze(1) * self.slots + touched) * (weight > ACCESSED)


@final
class _InPlace(Stretch):
    """The same step by step, on one copy of the slots."""

    def __init__(self, memory: SAM, state: SAMState) -> None:
        self.memory, self.read = memory, state.read
        self.initial = memory.initial_state(1).read
        search = ExactSearch() if memory.probes is None else IndexedSearch(memory.probes)
        self.table = WorkingTable(state.memory, search)
        self.order = AccessOrder(state.last_access)

    def step(
        self,
        prepared: Float[Tensor, "batch prepared"],
        known: Bool[Tensor, " batch"] | None,
        starts: Bool[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch output"]:
        memory, table, order = self.memory, self.table, self.order
        if starts is not None and starts.any():
            self.read = reset_rows(self.read, starts, self.initial)
            table.start_afresh(starts)
            order.start_afresh(starts)
        with torch.autocast(prepared.device.type, enabled=False):
            given = memory.split(prepared.to(table.memory))
            least = order.least_recent(memory.heads)
            slots, weights = memory.places(given, least, self.read)
            changes = (weights.unsqueeze(3) * given.words.unsqueeze(2)).flatten(1, 2)
            rows, found = table.exchange(least, slots.flatten(1), changes, given.queries, memory.found, known)
            output, read = memory.attend(given, rows, found, self.read)
            touched, stamps = memory.stamps(slots, weights, read)
        if known is not None:
            output, read = output.masked_fill(~known.unsqueeze(1), 0), where_rows(known, read, self.read)
            stamps = stamps * known.unsqueeze(1)
        order.touch(touched, stamps)
        self.read = read
        return output

    def end(self) -> SAMState:
        return SAMState(self.table.end(), self.order.end(), self.read)
