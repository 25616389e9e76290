"""What only `ModernHopfield` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch
from torch.nn import functional

from mnemos.memories import ModernHopfield


def stored(memory: ModernHopfield, count: int, seed: int = 0):
    made = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(2, count, memory.input_size, generator=made) for _ in range(2))
    return keys, values, memory.write(memory.initial_state(2), keys, values)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_one_update_is_attention_to_what_is_stored(count: int) -> None:
    memory = ModernHopfield(8, slots=6)
    keys, values, state = stored(memory, count)
    queries = torch.randn(2, 7, 8)
    expected = functional.scaled_dot_product_attention(queries, keys, values)
    torch.testing.assert_close(memory.read(state, queries).values, expected, atol=1e-6, rtol=0)


def test_further_updates_are_reads_of_reads() -> None:
    memory, thrice = ModernHopfield(8, slots=6), ModernHopfield(8, slots=6, steps=3)
    keys, _, _ = stored(memory, 6)
    state = memory.write(memory.initial_state(2), keys, keys)
    queries = torch.randn(2, 7, 8)
    found = queries
    for _ in range(3):
        found = memory.read(state, found).values
    torch.testing.assert_close(thrice.read(state, queries).values, found)


def test_a_pattern_is_found_from_half_of_it() -> None:
    memory = ModernHopfield(64, slots=1000, inverse_temperature=1.0)
    patterns = functional.normalize(torch.randn(1, 1000, 64), dim=-1) * 8
    state = memory.write(memory.initial_state(1), patterns, patterns)
    found = memory.read(state, torch.cat([patterns[..., :32], torch.zeros(1, 1000, 32)], dim=-1)).values
    assert (functional.cosine_similarity(found, patterns, dim=-1) > 0.99).float().mean() > 0.99


def test_every_read_lowers_the_energy() -> None:
    memory = ModernHopfield(8, slots=20, inverse_temperature=0.5)
    keys, _, _ = stored(memory, 20)
    state = memory.write(memory.initial_state(2), keys, keys)
    queries = 2 * torch.randn(2, 9, 8)
    for _ in range(5):
        found = memory.read(state, queries).values
        assert (memory.energy(state, found) <= memory.energy(state, queries) + 1e-5).all()
        queries = found


def test_past_its_slots_exactly_the_last_pairs_are_kept() -> None:
    memory = ModernHopfield(8, slots=5, inverse_temperature=50.0)
    keys, values, state = stored(memory, 13)
    reading = memory.read(state, keys)
    torch.testing.assert_close(reading.values[:, -5:], values[:, -5:])
    best = reading.slots.gather(2, reading.weights.argmax(2, keepdim=True)).squeeze(2)
    assert best[0, -5:].tolist() == [number % 5 for number in range(8, 13)]
    assert not torch.isclose(reading.values[:, :-5], values[:, :-5]).all(-1).any()


def test_forward_is_attention_to_the_last_steps() -> None:
    memory, inputs = ModernHopfield(6, slots=4), torch.randn(2, 90, 6)  # in several blocks
    outputs, state = memory(inputs)
    steps = torch.arange(90)
    last = (steps < steps.unsqueeze(1)) & (steps >= steps.unsqueeze(1) - 4)
    expected = functional.scaled_dot_product_attention(inputs, inputs, inputs, attn_mask=last)
    torch.testing.assert_close(outputs, expected)
    assert state.clock.tolist() == [90, 90]


def test_gradients_reach_what_was_written_and_what_asks() -> None:
    memory = ModernHopfield(4, slots=2, steps=2)
    keys, values = (torch.randn(1, 3, 4, requires_grad=True) for _ in range(2))
    queries = torch.randn(1, 1, 4, requires_grad=True)
    memory.read(memory.write(memory.initial_state(1), keys, values), queries).values.sum().backward()
    assert queries.grad.any()
    for gradient in (keys.grad, values.grad):
        assert [bool(step.any()) for step in gradient[0]] == [False, True, True]  # the first has left


def test_arguments_are_checked() -> None:
    for name in ("input_size", "slots", "steps"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            ModernHopfield(**{"input_size": 3, "slots": 2, name: 0})
    with pytest.raises(ValueError, match="inverse_temperature must be above 0, not 0"):
        ModernHopfield(3, 2, inverse_temperature=0.0)
    with pytest.raises(ValueError, match="state holds 2 rows, inputs 3"):
        ModernHopfield(3, 2).read(ModernHopfield(3, 2).initial_state(2), torch.zeros(3, 1, 3))
