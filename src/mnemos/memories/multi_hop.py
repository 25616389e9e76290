"""Slots that are read in several hops: the memory of end-to-end and of key-value memory networks.

Sukhbaatar, Szlam, Weston & Fergus 2015, "End-To-End Memory Networks"; Miller et al. 2016, "Key-Value Memory
Networks for Directly Reading Documents".
"""

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import AddressableMemory, Projection, Reading, check_sizes
from mnemos.ops import ring


class MultiHopState(NamedTuple):
    """The last records, in a ring: the n-th lies in slot n modulo their number."""

    keys: Float[Tensor, "batch slots keys"]  # m_i of the first hop
    values: Float[Tensor, "batch slots width"]  # c_i of every hop, side by side
    clock: Int[Tensor, " batch"]  # records written so far


class _Tying(NamedTuple):
    """What tells one form from another."""

    values: Callable[[int], int]  # by the number of hops: how many values a record has
    maps: Callable[[int], int]  # how many matrices act on the question
    update: Callable[[Tensor, Tensor, nn.ParameterList, int], Tensor]  # of question, answer, maps, hop


def _added(question: Tensor, answer: Tensor, maps: nn.ParameterList, hop: int) -> Tensor:
    return question + answer


def _mapped_before(question: Tensor, answer: Tensor, maps: nn.ParameterList, hop: int) -> Tensor:
    return functional.linear(question, maps[0]) + answer


def _mapped_after(question: Tensor, answer: Tensor, maps: nn.ParameterList, hop: int) -> Tensor:
    return functional.linear(question + answer, maps[hop])


_TYINGS = {
    "adjacent": _Tying(lambda hops: hops, lambda hops: 0, _added),
    "layer_wise": _Tying(lambda hops: 1, lambda hops: 1, _mapped_before),
    "key_value": _Tying(lambda hops: 1, lambda hops: hops, _mapped_after),
}


@final
class MultiHop(AddressableMemory):
    """Attends to its slots, adds what it found to the question, and asks again.

    With m_i the key and c_i the value of slot i (Sukhbaatar et al. 2015, eqs. 1 to 4), each hop is

        p_i = softmax_i(u·m_i),   o = Σ p_i c_i,   u ← u + o

    and what is answered is the last u. Records come embedded: an input is the key and the values of a record
    side by side, each of `width`, and as a question it is its key. The forms differ in what a hop reads:

    - "adjacent": one hop's values are the next one's keys (A^(k+1) = C^k), so a record has `hops` values;
    - "layer_wise": all hops read the same key and value, and u ← H u + o;
    - "key_value": the same, and u ← R_k (u + o) with a matrix of its own for each hop (Miller et al. 2016).

    H and R start as the identity, where all forms are alike.

    Temporal encoding (section 4.1): keys and values have a learned vector added that depends on how many
    records are newer, T(0) for the newest. Without it the slots are a set.

    A memory that holds nothing leaves the question as it is. `linear`, False from the start, leaves out the
    softmax at the beginning of training (linear start, section 4.2); weights then are no shares.

    Args:
        width: d, of questions, keys and each value.
        slots: records that are kept, the last ones.
        hops: K, times that the slots are read.
        tying: "adjacent", "layer_wise" or "key_value".
        temporal: whether it matters how long ago a record was written.
        may_find_nothing: whether slots that hold nothing, or a record of zeros, are found too, with a score
            and an answer of zero. A hop that nothing fits then hardly changes the question; without, every
            hop has to find something.
    """

    def __init__(
        self,
        width: int,
        slots: int,
        hops: int = 3,
        tying: str = "adjacent",
        temporal: bool = True,
        may_find_nothing: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(width=width, slots=slots, hops=hops)
        if tying not in _TYINGS:
            raise ValueError(f"tying must be one of {', '.join(map(repr, _TYINGS))}, not {tying!r}")
        self.width, self.slots, self.hops, self.tying, self.temporal = width, slots, hops, tying, temporal
        self.may_find_nothing = may_find_nothing
        self._form = _TYINGS[tying]
        self.records = 1 + self._form.values(hops)  # vectors of a record
        self.input_size, self.output_size = self.records * width, width
        self.linear = False
        self.maps = nn.ParameterList(torch.eye(width) for _ in range(self._form.maps(hops)))  # H or R_k
        # T_A and T_C: for each vector of a record, by how many records are newer
        self.ages = nn.Parameter(0.1 * torch.randn(self.records, slots, width)) if temporal else None

    def initial_state(self, batch_size: int) -> MultiHopState:
        """Nothing in any slot."""
        slots = self._origin.new_zeros(batch_size, self.slots, self.input_size)
        clock = self._origin.new_zeros(batch_size, dtype=torch.int64)
        return MultiHopState(*self._parted(slots), clock)

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        """A record's key is its question."""
        keys, values = self._parted(inputs)
        return Projection(keys, keys, values)

    def write(
        self,
        state: MultiHopState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> MultiHopState:
        """Puts each record into a slot of its own, in place of the oldest.

        Args:
            strength: of 0 a record is not written; how far above 0 makes no difference.
            mask: false where a record is not written.
        """
        self.check_given(state, keys=(keys, self.width), values=(values, self.input_size - self.width))
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        real = real if strength is None else real & (strength > 0)
        turn = ring.turn(state.clock, self.slots, real)
        return MultiHopState(
            ring.after(state.keys, keys, turn), ring.after(state.values, values, turn), turn.clock
        )

    def told(
        self,
        keys: Float[Tensor, "batch slots keys"],
        values: Float[Tensor, "batch slots width"],
        count: Int[Tensor, " batch"],
    ) -> MultiHopState:
        """What `write` makes of an empty memory with the first `count` records of each row, at most `slots`.

        Without the work of finding slots for them, which training on many short stories would feel. What lies
        beyond the first `count` must be zero.
        """
        if keys.shape[1] > self.slots:
            raise ValueError(f"keys must hold at most {self.slots} records, not {keys.shape[1]}")
        left = (0, 0, 0, self.slots - keys.shape[1])
        if left[-1]:
            keys, values = functional.pad(keys, left), functional.pad(values, left)
        return MultiHopState(keys, values, count)

    def read(self, state: MultiHopState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """The question after the last hop; weights and slots are those of one hop after the other."""
        self.check_given(state, queries=(queries, self.width))
        held = ring.filled(state.clock, self.slots).unsqueeze(1)
        every = torch.arange(self.slots, device=held.device)
        # The age of the record in each slot; and the slot of each age, since that is the same table.
        age = (state.clock.unsqueeze(1) - 1 - every) % self.slots
        age = age.unsqueeze(1).expand(-1, queries.shape[1], -1)
        if self.may_find_nothing:
            held = held & (state.keys != 0).any(-1).unsqueeze(1)
        question, weights = queries.to(state.keys), []
        records = (state.keys, *state.values.split(self.width, dim=-1))
        for hop in range(self.hops):
            place = hop if self.tying == "adjacent" else 0
            found = self._attend(question, records[place], place, age, held)
            answer = found @ records[place + 1].to(found)
            if self.ages is not None:
                answer = answer + found.gather(-1, age) @ self.ages[place + 1]
            question = self._form.update(question, answer, self.maps, hop)
            weights.append(found)
        slots = every.masked_fill(~held, -1).repeat(1, 1, self.hops)
        found = torch.cat(weights, dim=-1)
        return Reading(question, found, slots.expand_as(found))

    def _attend(self, question: Tensor, keys: Tensor, place: int, age: Tensor, held: Tensor) -> Tensor:
        scores = question @ keys.to(question).mT
        if self.ages is not None:
            # u·(m + T) = u·m + u·T: the vectors themselves need not be added up slot by slot.
            scores = scores + (question @ self.ages[place].mT).gather(-1, age)
        if self.linear:
            return scores.masked_fill(~held, 0)
        # Not -inf: a row without one record would be NaN.
        nothing = 0 if self.may_find_nothing else torch.finfo(scores.dtype).min
        return scores.masked_fill(~held, nothing).softmax(-1).masked_fill(~held, 0)

    def _parted(self, records: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = records.split([self.width, self.input_size - self.width], dim=-1)
        return keys, values
