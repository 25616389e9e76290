import pytest
import torch

from mnemos.memories import MultiHop
from mnemos.tree import select_rows


def told(memory, count, seed=0, rows=2):
    generator = torch.Generator().manual_seed(seed)
    records = torch.randn(rows, count, memory.input_size, generator=generator)
    _, keys, values, _ = memory.project(records)
    return keys, values


def naive_read(memory, state, question):
    """Equations 1 to 4, vector by vector, for one row and one question."""
    count = int(state.clock[0])
    slots = list(range(min(count, memory.slots)))
    ages = {slot: (count - 1 - slot) % memory.slots for slot in slots}
    records = {}
    for slot in slots:
        vectors = torch.cat([state.keys[0, slot], state.values[0, slot]]).split(memory.width)
        aged = 0 if memory.ages is None else memory.ages[:, ages[slot]]
        records[slot] = torch.stack(vectors) + aged
    weights = []
    for hop in range(memory.hops):
        place = hop if memory.tying == "adjacent" else 0
        scores = torch.stack([question @ records[slot][place] for slot in slots])
        share = scores if memory.linear else scores.softmax(0)
        answer = sum(share[n] * records[slot][place + 1] for n, slot in enumerate(slots))
        if memory.tying == "adjacent":
            question = question + answer
        elif memory.tying == "layer_wise":
            question = memory.maps[0] @ question + answer
        else:
            question = memory.maps[hop] @ (question + answer)
        weights.append(share)
    return question, torch.stack(weights)


@pytest.mark.parametrize("tying", ["adjacent", "layer_wise", "key_value"])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
@torch.no_grad()
def test_reading_is_the_papers_equations(tying, linear, count):
    torch.manual_seed(0)
    memory = MultiHop(3, slots=4, hops=3, tying=tying)
    memory.linear = linear
    for matrix in memory.maps:
        matrix.add_(0.3 * torch.randn(3, 3))
    state = memory.write(memory.initial_state(2), *told(memory, count))
    question = torch.randn(2, 1, 3)
    reading = memory.read(state, question)
    for row in range(2):
        expected, weights = naive_read(memory, select_rows(state, torch.tensor([row])), question[row, 0])
        torch.testing.assert_close(reading.values[row, 0], expected, rtol=1e-5, atol=1e-5)
        held = min(count, 4)
        found = reading.weights[row, 0].unflatten(0, (3, 4))
        torch.testing.assert_close(found[:, :held], weights, rtol=1e-5, atol=1e-5)
        assert not found[:, held:].any()
    assert reading.slots[0, 0].tolist() == [slot if slot < held else -1 for slot in range(4)] * 3


def test_forms_are_alike_where_all_values_are_one_and_maps_the_identity():
    torch.manual_seed(0)
    width = 4
    adjacent = MultiHop(width, 5, hops=2, temporal=False)
    keys = torch.randn(1, 3, width)
    question = torch.randn(1, 1, width)
    expected = adjacent.read(
        adjacent.write(adjacent.initial_state(1), keys, torch.cat([keys, keys], -1)), question
    )
    for tying in ("layer_wise", "key_value"):
        memory = MultiHop(width, 5, hops=2, tying=tying, temporal=False)
        reading = memory.read(memory.write(memory.initial_state(1), keys, keys), question)
        torch.testing.assert_close(reading.values, expected.values)


@torch.no_grad()
def test_without_temporal_encoding_the_slots_are_a_set_and_with_it_they_are_not():
    torch.manual_seed(0)
    question = torch.randn(2, 1, 3)
    for temporal in (False, True):
        memory = MultiHop(3, 6, temporal=temporal)
        keys, values = told(memory, 5)
        there, back = (
            memory.read(
                memory.write(memory.initial_state(2), keys[:, order], values[:, order]), question
            ).values
            for order in (torch.arange(5), torch.arange(4, -1, -1))
        )
        assert torch.allclose(there, back, atol=1e-6) is not temporal


def test_a_great_key_is_all_that_is_read():
    memory = MultiHop(2, 4, hops=1, temporal=False)
    keys = torch.tensor([[[100.0, 0.0], [0.0, 100.0]]])
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    state = memory.write(memory.initial_state(1), keys, values)
    reading = memory.read(state, torch.tensor([[[0.0, 1.0]]]))
    torch.testing.assert_close(reading.values, torch.tensor([[[3.0, 5.0]]]))
    torch.testing.assert_close(reading.weights, torch.tensor([[[0.0, 1.0, 0.0, 0.0]]]))


def test_a_hop_that_may_find_nothing_looks_at_what_says_nothing():
    memory = MultiHop(2, 4, hops=1, temporal=False, may_find_nothing=True)
    keys = torch.tensor([[[100.0, 0.0], [0.0, 0.0], [0.0, 100.0]]])
    values = torch.tensor([[[1.0, 2.0], [7.0, 7.0], [3.0, 4.0]]])
    state = memory.write(memory.initial_state(1), keys, values)
    fitting, other = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[-1.0, -1.0]]])
    torch.testing.assert_close(memory.read(state, fitting).values, torch.tensor([[[3.0, 5.0]]]))
    reading = memory.read(state, other)
    torch.testing.assert_close(reading.values, other)
    assert reading.weights.sum() < 1e-6
    memory.may_find_nothing = False
    assert memory.read(state, other).weights.sum() == pytest.approx(1)


def test_what_is_told_at_once_is_what_is_written():
    memory = MultiHop(3, 6)
    keys, values = told(memory, 5)
    count = torch.tensor([2, 5])
    there = torch.arange(5) < count.unsqueeze(1)
    keys, values = (part.masked_fill(~there.unsqueeze(-1), 0) for part in (keys, values))
    written = memory.write(memory.initial_state(2), keys, values, mask=there)
    for actual, expected in zip(memory.told(keys, values, count), written, strict=True):
        torch.testing.assert_close(actual, expected)
    with pytest.raises(ValueError, match="at most 6 records, not 7"):
        memory.told(*told(memory, 7), count)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="one of 'adjacent', 'layer_wise', 'key_value', not 'tied'"):
        MultiHop(3, 4, tying="tied")
    with pytest.raises(ValueError, match="hops must be at least 1"):
        MultiHop(3, 4, hops=0)
    memory = MultiHop(3, 4)
    with pytest.raises(ValueError, match="queries must have shape"):
        memory.read(memory.initial_state(1), torch.zeros(1, 1, 4))
