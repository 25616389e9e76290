"""What memories with sparse access share: heads that write to few slots and read few, however many there are.

Rae, Hunt, Harley, Danihelka, Senior, Wayne, Graves & Lillicrap 2016, "Scaling Memory-Augmented Neural
Networks with Sparse Reads and Writes", section 3.
"""

from abc import abstractmethod
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from mnemos.memories.access_order import AccessOrder
from mnemos.memories.base import check_sizes
from mnemos.memories.slot_search import ExactSearch, IndexedSearch
from mnemos.memories.stepped import SteppedMemory, Stretch, interface
from mnemos.memories.working_table import WorkingTable
from mnemos.ops.sparse_access import erase_and_add, least_recent_slots, nearest_slots
from mnemos.tree import map_tensors, reset_rows, where_rows

Links = tuple[Any, ...]
# What a head begins with, before its controller says anything: to write to a slot of its own, and to read
# what is most like its query. With zeros it writes half over what was read last: recall is learned far later.
STRENGTH, GATE, AGAIN = 5.0, 1.0, -3.0
ACCESSED = 0.005  # δ: a slot that is read or written with a greater weight counts as accessed


class LastRead(NamedTuple):
    """What a step needs to know of the one before, beside the slots themselves."""

    slots: Int[Tensor, "batch heads found"]  # s_i of w^R_(t-1)
    weights: Float[Tensor, "batch heads found"]  # w^R_(t-1) at these slots
    clock: Int[Tensor, " batch"]  # real steps so far


class Interface(NamedTuple):
    """What a controller says in a step."""

    words: Float[Tensor, "batch heads width"]  # a_t
    queries: Float[Tensor, "batch heads width"]  # q_t
    strengths: Float[Tensor, "batch heads"]  # β_t, 1 and above
    gates: Float[Tensor, "batch heads"]  # α_t
    again: Float[Tensor, "batch heads"]  # γ_t: to the slots that were read last, not to a new one
    more: Float[Tensor, "batch heads numbers"]  # as it is, for those that need more


class Along(NamedTuple):
    """Slots that each head may read beside the most similar ones, and how much speaks for each."""

    slots: Int[Tensor, "batch heads more"]
    weights: Float[Tensor, "batch heads more"]


class SparseAccess(SteppedMemory):
    """A step empties a slot a head, writes to few, searches the most similar ones, and reads few.

    Its state is a `NamedTuple` of the slots, when each was accessed, what was read last, and whatever else a
    memory keeps of its steps, without a gradient: its links, `()` for none.

    Args:
        numbers: how many more a head is told.
    """

    def __init__(
        self,
        input_size: int,
        slots: int,
        width: int,
        heads: int,
        top_k: int,
        probes: int | None,
        numbers: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, slots=slots, width=width, heads=heads, top_k=top_k)
        check_sizes(probes=1 if probes is None else probes)
        self.input_size, self.slots, self.width = input_size, slots, width
        self.heads, self.top_k, self.probes = heads, top_k, probes
        self.output_size = heads * width
        self.naive = False
        told = [*[0.0] * 2 * width, STRENGTH, GATE, AGAIN, *[0.0] * numbers]
        self.interface = interface(input_size, heads * len(told), torch.tensor(told).repeat(heads))

    @abstractmethod
    def link(
        self,
        links: Links,
        slots: Int[Tensor, "batch written"],
        weights: Float[Tensor, "batch written"],
        read: LastRead,
        known: Bool[Tensor, " batch"] | None = None,
        *,
        in_place: bool = False,
    ) -> tuple[Links, Along | None]:
        """The links after a write, of the rows that are known, and where they lead from the last reads."""

    @abstractmethod
    def attend(
        self,
        given: Interface,
        rows: Float[Tensor, "batch heads candidates width"],
        slots: Int[Tensor, "batch heads candidates"],
        along: Along | None,
    ) -> tuple[
        Float[Tensor, "batch heads width"],
        Int[Tensor, "batch heads found"],
        Float[Tensor, "batch heads found"],
    ]:
        """r_t and w^R_t, its slots and weights, from the slots that were found, and those along the links."""

    @property
    def found(self) -> int:
        """How many slots a head reads: `top_k`, or all of fewer."""
        return min(self.top_k, self.slots)

    def empty(self, batch_size: int) -> tuple[Tensor, Tensor, LastRead]:
        """An empty memory of which nothing was read; its first slot is the least recently accessed.

        Its slots are one zero, expanded: they take no room until something is written.
        """
        new = self._origin.new_zeros
        order = torch.arange(self.slots, device=self._origin.device)
        shape = (batch_size, self.heads, self.found)
        return (
            new(1, 1, 1).expand(batch_size, self.slots, self.width),
            order.expand(batch_size, -1),
            LastRead(new(shape, dtype=torch.int64), new(shape), new(batch_size, dtype=torch.int64)),
        )

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        return self.interface(inputs)

    def step(
        self, prepared: Float[Tensor, "batch prepared"], state: Any
    ) -> tuple[Float[Tensor, "batch output"], Any]:
        with torch.autocast(prepared.device.type, enabled=False):  # half a mantissa does not tell slots apart
            given = self.split(prepared.to(state.memory))
            least = least_recent_slots(state.last_access, self.heads)
            slots, weights = self.places(given, least, state.read)
            changes = weights.unsqueeze(3) * given.words.unsqueeze(2)
            memory = erase_and_add(state.memory, least, slots.flatten(1), changes.flatten(1, 2))
            links, along = self.link(state[3:], slots.flatten(1), weights.flatten(1), state.read)
            candidates = nearest_slots(memory, given.queries, self.found)
            if along is not None:
                candidates = torch.cat([candidates, along.slots], dim=2)
            rows = memory.gather(1, candidates.flatten(1).unsqueeze(2).expand(-1, -1, self.width))
            rows = rows.unflatten(1, candidates.shape[1:])
            output, read = self.read(given, rows, candidates, along, state.read)
            touched, stamps = self.stamps(slots, weights, read)
            last_access = state.last_access.scatter_reduce(1, touched, stamps, "amax")
        return output, type(state)(memory, last_access, read, *links)

    def stretch(self, state: Any) -> Stretch | None:
        # torch.compile cannot trace work in place that autograd goes back through.
        plain = self.naive or torch.compiler.is_compiling()
        return None if plain else _InPlace(self, state)

    def split(self, prepared: Float[Tensor, "batch prepared"]) -> Interface:
        """The interface vector, part by part."""
        parts = prepared.unflatten(-1, (self.heads, -1))
        words, queries, numbers = parts.tensor_split([self.width, 2 * self.width], dim=-1)
        strengths, gates, again = numbers[..., :3].unbind(-1)
        return Interface(
            words,
            queries,
            1 + functional.softplus(strengths),
            gates.sigmoid(),
            again.sigmoid(),
            numbers[..., 3:],
        )

    def places(
        self, given: Interface, least: Int[Tensor, "batch heads"], last: LastRead
    ) -> tuple[Int[Tensor, "batch heads written"], Float[Tensor, "batch heads written"]]:
        """w^W_t: the slots that are written, and with what weight."""
        old = (given.gates * given.again).unsqueeze(2) * last.weights
        new = (given.gates * (1 - given.again)).unsqueeze(2)
        return torch.cat([last.slots, least.unsqueeze(2)], dim=2), torch.cat([old, new], dim=2)

    def read(
        self, given: Interface, rows: Tensor, candidates: Tensor, along: Along | None, last: LastRead
    ) -> tuple[Float[Tensor, "batch output"], LastRead]:
        """What all heads read, and the note of it."""
        output, slots, weights = self.attend(given, rows, candidates, along)
        # What holds nothing has no name: else it would depend on how the search goes.
        return output.flatten(1), LastRead(slots.masked_fill(weights == 0, 0), weights, last.clock + 1)

    def stamps(
        self, slots: Tensor, weights: Tensor, read: LastRead
    ) -> tuple[Int[Tensor, "batch touched"], Int[Tensor, "batch touched"]]:
        """The slots that a step touched, and when: 0, before all time, if it hardly did."""
        touched = torch.cat([slots.flatten(1), read.slots.flatten(1)], dim=1)
        weight = torch.cat([weights.flatten(1), read.weights.flatten(1)], dim=1)
        return touched, (read.clock.unsqueeze(1) * self.slots + touched) * (weight > ACCESSED)


@final
class _InPlace(Stretch):
    """The same step by step, on one copy of the slots and of the links."""

    def __init__(self, memory: SparseAccess, state: Any) -> None:
        self.memory, self.gathered, self.read = memory, type(state), state.read
        self.initial = memory.initial_state(1)[2:]
        search = ExactSearch() if memory.probes is None else IndexedSearch(memory.probes)
        self.table = WorkingTable(state.memory, search)
        self.order = AccessOrder(state.last_access)
        self.links = map_tensors(lambda x: x.clone(memory_format=torch.contiguous_format), state[3:])

    def step(
        self,
        prepared: Float[Tensor, "batch prepared"],
        known: Bool[Tensor, " batch"] | None,
        starts: Bool[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch output"]:
        memory, table, order = self.memory, self.table, self.order
        if starts is not None and starts.any():
            self.read, *links = reset_rows((self.read, *self.links), starts, tuple(self.initial))
            self.links = tuple(links)
            table.start_afresh(starts)
            order.start_afresh(starts)
        with torch.autocast(prepared.device.type, enabled=False):
            given = memory.split(prepared.to(table.memory))
            least = order.least_recent(memory.heads)
            slots, weights = memory.places(given, least, self.read)
            changes = (weights.unsqueeze(3) * given.words.unsqueeze(2)).flatten(1, 2)
            written = slots.flatten(1)
            self.links, along = memory.link(
                self.links, written, weights.flatten(1), self.read, known, in_place=True
            )
            also = None if along is None else along.slots
            rows, candidates = table.exchange(
                least, written, changes, given.queries, memory.found, known, also
            )
            output, read = memory.read(given, rows, candidates, along, self.read)
            touched, stamps = memory.stamps(slots, weights, read)
        if known is not None:
            output, read = output.masked_fill(~known.unsqueeze(1), 0), where_rows(known, read, self.read)
            stamps = stamps * known.unsqueeze(1)
        order.touch(touched, stamps)
        self.read = read
        return output

    def end(self) -> Any:
        return self.gathered(self.table.end(), self.order.end(), self.read, *self.links)
