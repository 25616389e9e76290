"""Slots: what is kept, what is overwritten, what counts as a read; against a plain program."""

import math
import random
from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from mnemos.memories import KeyValue
from mnemos.retention import (
    decayed_strength,
    first_in_first_out,
    least_often_used,
    least_recently_used,
    least_surprising,
    most_redundant,
    reservoir,
)
from mnemos.tree import tensors

BATCH, KEYS, WIDTH = 3, 2, 4


@dataclass
class Slot:
    id: int
    written_at: int
    last_read: int
    times_read: int
    strength: float
    key: list
    value: list


def mixed(number):
    """SplitMix64 in Python's own integers, as a signed number."""
    z = (number + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


# The worth of a slot among `others` at time `now`: the policies said once more, in plain words.
POLICIES = {
    "first_in_first_out": (first_in_first_out(), lambda slot, others, now: slot.id),
    "least_recently_used": (least_recently_used(), lambda slot, others, now: slot.last_read),
    "least_often_used": (least_often_used(), lambda slot, others, now: (slot.times_read, slot.last_read)),
    "decayed_strength": (
        decayed_strength(5.0),
        lambda slot, others, now: slot.strength * (1 + slot.times_read) * 2 ** ((slot.last_read - now) / 5),
    ),
    "least_surprising": (least_surprising(), lambda slot, others, now: slot.strength),
    "most_redundant": (
        most_redundant(),
        lambda slot, others, now: min(
            (math.dist(slot.key, other.key) for other in others if other.id > slot.id), default=math.inf
        ),
    ),
    "reservoir": (reservoir(3), lambda slot, others, now: mixed(slot.id + mixed(3))),
}


class PlainSlots:
    """One row of a KeyValue memory as a Python program."""

    def __init__(self, slots, worth, top_k=None):
        self.slots, self.worth, self.top_k, self.clock = [None] * slots, worth, top_k, 0

    def write(self, key, value, strength=1.0):
        filled = [slot for slot in self.slots if slot]
        if len(filled) < len(self.slots):
            place = self.slots.index(None)
        else:
            place = min(
                range(len(self.slots)),
                key=lambda at: (self.worth(self.slots[at], filled, self.clock), self.slots[at].id),
            )
        self.slots[place] = Slot(self.clock, self.clock, self.clock, 0, strength, key, value)
        self.clock += 1

    def read(self, query, size=KEYS):
        """The answer; it counts as use of the best slot, or of the best k."""
        filled = [slot for slot in self.slots if slot]
        scores = [sum(a * b for a, b in zip(query, slot.key, strict=True)) / size**0.5 for slot in filled]
        best = sorted(range(len(filled)), key=lambda at: -scores[at])[: self.top_k or len(filled)]
        weights = [math.exp(scores[at] - max(scores)) for at in best]
        for at in best[: self.top_k or 1]:
            filled[at].last_read = self.clock
            filled[at].times_read += 1
        width = len(filled[0].value) if filled else 0
        return [
            sum(weight * filled[at].value[i] for weight, at in zip(weights, best, strict=True)) / sum(weights)
            for i in range(width)
        ]

    def assert_equal(self, state, row):
        assert int(state.clock[row]) == self.clock
        for place, slot in enumerate(self.slots):
            if slot is None:
                assert state.usage.ids[row, place] == -1
                continue
            found = [field[row, place].item() for field in state.usage]
            expected = [slot.id, slot.written_at, slot.last_read, slot.times_read, slot.strength]
            assert found == pytest.approx(expected)
            assert state.keys[row, place].tolist() == pytest.approx(slot.key, abs=1e-6)
            assert state.values[row, place].tolist() == pytest.approx(slot.value, abs=1e-6)


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("name", POLICIES)
def test_what_is_overwritten_is_what_the_policy_says(name, top_k):
    policy, worth = POLICIES[name]
    memory = KeyValue(5, KEYS, WIDTH, slots=4, policy=policy, top_k=top_k)
    state = memory.initial_state(BATCH)
    plain = [PlainSlots(4, worth, top_k) for _ in range(BATCH)]
    chance = random.Random(name)
    # Equal keys make equal distances, but they also make equal scores, and then any may be read.
    ties = policy.reads_keys
    for _ in range(40):
        if chance.random() < 0.4 and not ties:
            queries = torch.tensor([[[chance.gauss(0, 1) for _ in range(KEYS)]] for _ in range(BATCH)])
            state = memory.touch(state, memory.read(state, queries))
            for row in range(BATCH):
                plain[row].read(queries[row, 0].tolist())
        else:
            count = chance.randrange(1, 4)
            keys = torch.tensor(
                [
                    [
                        [chance.randrange(4) if ties else chance.gauss(0, 1) for _ in range(KEYS)]
                        for _ in range(count)
                    ]
                    for _ in range(BATCH)
                ]
            ).float()
            values = torch.tensor(
                [[[chance.gauss(0, 1)] * WIDTH for _ in range(count)] for _ in range(BATCH)]
            )
            strength = torch.tensor(
                [[chance.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(count)] for _ in range(BATCH)]
            )
            mask = torch.tensor([[chance.random() < 0.8 for _ in range(count)] for _ in range(BATCH)])
            state = memory.write(state, keys, values, strength=strength, mask=mask)
            for row in range(BATCH):
                for step in range(count):
                    if mask[row, step] and strength[row, step] > 0:
                        pair = keys[row, step].tolist(), values[row, step].tolist()
                        plain[row].write(*pair, strength[row, step].item())
        for row in range(BATCH):
            plain[row].assert_equal(state, row)


@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("name", POLICIES)
def test_forward_is_the_plain_program(name, top_k, naive):
    torch.manual_seed(1)
    policy, worth = POLICIES[name]
    memory = KeyValue(5, KEYS, WIDTH, slots=4, policy=policy, top_k=top_k)
    memory.naive = naive
    inputs = torch.randn(BATCH, 40, 5)  # more than the slots, and more than one piece of the fast path
    with torch.no_grad():
        outputs, state = memory(inputs)
        queries, keys, values, _ = memory.project(inputs)
    for row in range(BATCH):
        plain = PlainSlots(4, worth, top_k)
        for step in range(40):
            answer = plain.read(queries[row, step].tolist()) or [0.0] * WIDTH
            assert outputs[row, step].tolist() == pytest.approx(answer, abs=1e-5)
            plain.write(keys[row, step].tolist(), values[row, step].tolist())
        plain.assert_equal(state, row)


def filled(memory, count=6, seed=0):
    torch.manual_seed(seed)
    keys, values = torch.randn(2, count, memory.key_size), torch.randn(2, count, memory.value_size)
    return keys, values, memory.write(memory.initial_state(2), keys, values)


def test_a_read_of_all_slots_is_scaled_dot_product_attention():
    memory = KeyValue(3, 8, 5, slots=6, policy=first_in_first_out())
    keys, values, state = filled(memory)
    queries = torch.randn(2, 7, 8)
    expected = functional.scaled_dot_product_attention(queries, keys, values)
    torch.testing.assert_close(memory.read(state, queries).values, expected)


def test_a_read_of_the_best_slots_is_attention_to_those_alone():
    memory = KeyValue(3, 8, 5, slots=6, policy=first_in_first_out(), top_k=2)
    keys, values, state = filled(memory)
    queries = torch.randn(2, 7, 8)
    reading = memory.read(state, queries)
    scores = queries @ keys.transpose(1, 2)
    assert torch.equal(reading.slots, scores.topk(2).indices)
    allowed = torch.zeros_like(scores, dtype=torch.bool).scatter(2, reading.slots, True)
    expected = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)
    torch.testing.assert_close(reading.values, expected)


def test_more_best_slots_than_slots_are_all_of_them():
    few = KeyValue(3, 8, 5, slots=6, policy=first_in_first_out())
    many = KeyValue(3, 8, 5, slots=6, policy=first_in_first_out(), top_k=9)
    _, _, state = filled(few, count=4)
    queries = torch.randn(2, 7, 8)
    assert all(map(torch.equal, few.read(state, queries), many.read(state, queries)))


def test_what_was_just_written_is_found_whatever_the_size_of_the_writes():
    """A store of 10 slots written 3 pairs at a time loses every pair after the first wrap in one package."""
    memory = KeyValue(3, 8, 5, slots=10, policy=first_in_first_out(), top_k=1)
    state = memory.initial_state(2)
    torch.manual_seed(0)
    for _ in range(12):
        keys, values = functional.normalize(torch.randn(2, 3, 8), dim=-1), torch.randn(2, 3, 5)
        state = memory.write(state, keys, values)
        torch.testing.assert_close(memory.read(state, keys).values, values)


def test_an_empty_slot_has_no_part_in_an_answer():
    memory = KeyValue(3, 8, 5, slots=6, policy=first_in_first_out())
    _, values, state = filled(memory, count=1)
    reading = memory.read(state, -1e3 * torch.ones(2, 1, 8))
    torch.testing.assert_close(reading.values, values)
    assert reading.slots.tolist() == [[[0, -1, -1, -1, -1, -1]]] * 2
    assert reading.weights.tolist() == [[[1, 0, 0, 0, 0, 0]]] * 2


@pytest.mark.parametrize(("top_k", "used"), [(None, 1), (3, 3)])
def test_a_read_counts_as_use_of_the_best_slot_or_of_those_asked_for(top_k, used):
    memory = KeyValue(3, 8, 5, slots=6, policy=least_often_used(), top_k=top_k)
    _, _, state = filled(memory)
    reading = memory.read(state, torch.randn(2, 4, 8))
    after = memory.touch(state, reading)
    assert after.usage.times_read.sum(dim=1).tolist() == [4 * used] * 2
    assert torch.equal(after.usage.last_read == 6, after.usage.times_read > 0)


def test_reading_and_touching_do_not_move_the_clock():
    memory = KeyValue(3, 8, 5, slots=6, policy=least_often_used())
    _, _, state = filled(memory)
    after = memory.touch(state, memory.read(state, torch.randn(2, 4, 8)))
    assert after.clock.tolist() == state.clock.tolist() == [6, 6]


def test_gradients_reach_what_was_written_and_what_asks():
    memory = KeyValue(3, 8, 5, slots=2, policy=first_in_first_out())
    keys, values = torch.randn(1, 3, 8, requires_grad=True), torch.randn(1, 3, 5, requires_grad=True)
    queries = torch.randn(1, 1, 8, requires_grad=True)
    state = memory.write(memory.initial_state(1), keys, values)
    memory.read(state, queries).values.sum().backward()
    assert queries.grad.any()
    # The first of three pairs has left a memory of two slots, and its gradient with it.
    assert (
        [bool(g.any()) for g in keys.grad[0]]
        == [bool(g.any()) for g in values.grad[0]]
        == [False, True, True]
    )


def test_a_pair_longest_unread_is_kept_by_being_read():
    memory = KeyValue(3, 2, 2, slots=2, policy=least_recently_used(), top_k=1)
    first, second, third = torch.tensor([[[1.0, 0]], [[0, 1.0]], [[-1.0, 0]]]).unsqueeze(1)
    state = memory.write(memory.write(memory.initial_state(1), first, first), second, second)
    state = memory.touch(state, memory.read(state, first))
    state = memory.write(state, third, third)
    assert state.keys[0].tolist() == [[1, 0], [-1, 0]]


def test_the_state_says_which_argument_is_wrong():
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        KeyValue(3, 8, 5, slots=0, policy=first_in_first_out())
    with pytest.raises(ValueError, match="top_k must be at least 1, not 0"):
        KeyValue(3, 8, 5, slots=2, policy=first_in_first_out(), top_k=0)
    memory = KeyValue(3, 8, 5, slots=2, policy=first_in_first_out())
    with pytest.raises(ValueError, match="state holds 2 rows, inputs 3"):
        memory.read(memory.initial_state(2), torch.zeros(3, 1, 8))


def test_the_state_is_as_large_as_its_slots():
    memory = KeyValue(3, 8, 5, slots=7, policy=first_in_first_out())
    assert {tensor.shape[:2] for tensor in tensors(memory.initial_state(2)[:3])} == {(2, 7)}
