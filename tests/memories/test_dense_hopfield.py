"""What only `DenseHopfield` claims; the laws that it shares with every memory are in the suite."""

from functools import partial

import pytest
import torch

from mnemos.memories import DenseHopfield, Hopfield
from mnemos.ops.hopfield import exponential, polynomial, signs


def patterns_of(rows: int, count: int, units: int, seed: int = 0) -> torch.Tensor:
    return signs(torch.randn(rows, count, units, generator=torch.Generator().manual_seed(seed)))


def with_flips(patterns: torch.Tensor, share: float) -> torch.Tensor:
    flips = torch.rand(patterns.shape, generator=torch.Generator().manual_seed(9)) < share
    return torch.where(flips, -patterns, patterns)


def test_steeper_separations_hold_more() -> None:
    patterns = patterns_of(1, 300, 40)
    shares = {}
    for name, separation in {
        "square": partial(polynomial, degree=2),
        "cube": partial(polynomial, degree=3),
        "fifth": partial(polynomial, degree=5),
        "exponential": exponential,
    }.items():
        memory = DenseHopfield(40, 300, separation)
        state = memory.write(memory.initial_state(1), patterns, patterns)
        found = memory.read(state, with_flips(patterns, 0.05)).values
        shares[name] = (found == patterns).all(-1).float().mean().item()
    assert shares["square"] == 0
    assert shares["cube"] < 0.1
    assert shares["fifth"] > 0.6
    assert shares["exponential"] > 0.95


def test_the_square_is_the_classical_memory() -> None:
    patterns, queries = patterns_of(2, 8, 50), patterns_of(2, 20, 50, seed=1)
    dense, classical = DenseHopfield(50, 8, partial(polynomial, degree=2)), Hopfield(50)
    found = dense.read(dense.write(dense.initial_state(2), patterns, patterns), queries)
    expected = classical.read(classical.write(classical.initial_state(2), patterns, patterns), queries)
    assert torch.equal(found.values, expected.values)


def test_past_its_slots_exactly_the_last_patterns_are_kept() -> None:
    memory, patterns = DenseHopfield(40, 6), patterns_of(2, 20, 40)
    state = memory.initial_state(2)
    for step in range(20):
        state = memory.write(state, patterns[:, step : step + 1], patterns[:, step : step + 1])
        kept = patterns[:, max(0, step - 5) : step + 1]
        reading = memory.read(state, with_flips(kept, 0.05))
        assert torch.equal(reading.values, kept)
        best = reading.slots.gather(2, reading.weights.argmax(2, keepdim=True)).squeeze(2)
        assert best[0].tolist() == [number % 6 for number in range(max(0, step - 5), step + 1)]
    torch.testing.assert_close(memory.write(memory.initial_state(2), patterns, patterns), state)


def test_a_reading_tells_how_near_it_is_to_every_pattern() -> None:
    memory, patterns = DenseHopfield(40, 6), patterns_of(1, 4, 40)
    state = memory.write(memory.initial_state(1), patterns, patterns)
    values, weights, slots = memory.read(state, patterns)
    assert slots.tolist() == [[[0, 1, 2, 3, -1, -1]] * 4]
    torch.testing.assert_close(weights[..., :4], values @ patterns.mT / 40)
    assert weights[0, 2, 2] == 1
    assert not weights[..., 4:].any()


def test_an_empty_memory_answers_zeros() -> None:
    memory = DenseHopfield(5, 3)
    values, weights, slots = memory.read(memory.initial_state(2), torch.randn(2, 4, 5))
    assert not values.any()
    assert not weights.any()
    assert (slots == -1).all()


def test_reading_lowers_the_energy() -> None:
    memory, patterns = DenseHopfield(30, 50), patterns_of(1, 50, 30)
    state = memory.write(memory.initial_state(1), patterns, patterns)
    queries = patterns_of(1, 20, 30, seed=1)
    assert (memory.energy(state, memory.read(state, queries).values) <= memory.energy(state, queries)).all()


def test_arguments_are_checked() -> None:
    for name in ("input_size", "slots", "sweeps"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            DenseHopfield(**{"input_size": 3, "slots": 2, name: 0})
    memory = DenseHopfield(3, 2)
    with pytest.raises(ValueError, match=r"queries must have shape \(batch, time, 3\), not \(2, 1, 4\)"):
        memory.read(memory.initial_state(2), torch.zeros(2, 1, 4))
