"""What only `Hopfield` claims; the laws that it shares with every memory are in the suite."""

from functools import partial

import pytest
import torch

from mnemos.memories import Hopfield
from mnemos.ops.hopfield import asynchronous, hebb, pseudo_inverse, signs, storkey, synchronous


def patterns_of(rows: int, count: int, units: int, seed: int = 0) -> torch.Tensor:
    return signs(torch.randn(rows, count, units, generator=torch.Generator().manual_seed(seed)))


def with_flips(patterns: torch.Tensor, share: float) -> torch.Tensor:
    flips = torch.rand(patterns.shape, generator=torch.Generator().manual_seed(9)) < share
    return torch.where(flips, -patterns, patterns)


@pytest.mark.parametrize("dynamics", [asynchronous, synchronous])
@pytest.mark.parametrize("rule", [hebb, storkey, pseudo_inverse])
def test_a_pattern_is_found_from_a_part_of_it(rule, dynamics) -> None:
    memory, patterns = Hopfield(200, rule, dynamics), patterns_of(2, 10, 200)
    state = memory.write(memory.initial_state(2), patterns, 3.5 * patterns)  # only signs are looked at
    reading = memory.read(state, 0.1 * with_flips(patterns, 0.1))
    assert torch.equal(reading.values, patterns)
    assert reading.slots[0, 0].tolist() == list(range(200))


def test_a_reading_is_what_its_columns_say() -> None:
    memory, patterns = Hopfield(60), patterns_of(2, 5, 60)
    state = memory.write(memory.initial_state(2), patterns, patterns)
    values, weights, _ = memory.read(state, with_flips(patterns, 0.1))
    torch.testing.assert_close(signs(torch.einsum("bws,bts->btw", state.weights, weights)), values)


def test_rows_are_independent_networks() -> None:
    memory, patterns = Hopfield(100), patterns_of(2, 3, 100)
    state = memory.write(memory.initial_state(2), patterns, patterns)
    swapped = memory.read(state, patterns.flip(0)).values
    assert not torch.equal(swapped, patterns.flip(0))


def test_an_empty_memory_leaves_the_query_as_it_is() -> None:
    memory, queries = Hopfield(10), patterns_of(2, 3, 10)
    assert torch.equal(memory.read(memory.initial_state(2), queries).values, queries)


def test_the_energy_of_what_is_remembered_is_low() -> None:
    memory, patterns = Hopfield(100), patterns_of(1, 5, 100)
    state = memory.write(memory.initial_state(1), patterns, patterns)
    stored, random = memory.energy(state, patterns), memory.energy(state, patterns_of(1, 5, 100, seed=1))
    assert stored.max() < -40 < random.min()


def test_with_decay_the_last_patterns_are_kept_and_without_none() -> None:
    patterns = patterns_of(1, 300, 200)  # far more than the 27 that 200 units hold
    for decay, share in ((0.0, 0.0), (0.05, 1.0)):
        memory = Hopfield(200, decay=decay)
        state = memory.write(memory.initial_state(1), patterns, patterns)
        last = patterns[:, -5:]
        found = (memory.read(state, last).values * last).mean(-1) > 0.95
        assert found.float().mean() == share


def test_strength_scales_the_change() -> None:
    memory, patterns = Hopfield(20, decay=0.3), patterns_of(1, 1, 20)
    start = memory.write(
        memory.initial_state(1), patterns_of(1, 2, 20, seed=1), patterns_of(1, 2, 20, seed=1)
    )
    whole = memory.write(start, patterns, patterns).weights - start.weights
    half = memory.write(start, patterns, patterns, strength=torch.tensor([[0.5]])).weights - start.weights
    torch.testing.assert_close(half, whole / 2)


def test_strength_has_a_gradient() -> None:
    memory, patterns = Hopfield(20), patterns_of(1, 1, 20)
    strength = torch.ones(1, 1, requires_grad=True)
    state = memory.write(memory.initial_state(1), patterns, patterns, strength=strength)
    memory.energy(state, patterns).sum().backward()
    torch.testing.assert_close(strength.grad, torch.tensor([[-9.5]]))  # -½ (N² - N) / N


def test_unlearning_makes_room() -> None:
    """Beyond capacity mixtures are found instead of patterns: with less of those, the patterns come back."""
    memory, patterns = Hopfield(80), patterns_of(4, 16, 80)
    learned = memory.write(memory.initial_state(4), patterns, patterns)
    unlearned = memory.unlearn(learned, patterns_of(4, 100, 80, seed=1))
    shares = []
    for state in (learned, unlearned):
        found = memory.read(state, patterns).values
        shares.append(((found * patterns).mean(-1) > 0.95).float().mean().item())
    assert shares[0] < 0.85, shares
    assert shares[1] > shares[0] + 0.15, shares


def test_an_order_of_units_is_given_as_data() -> None:
    memory, patterns = Hopfield(30), patterns_of(1, 9, 30)
    backwards = Hopfield(30, dynamics=partial(asynchronous, order=tuple(range(29, -1, -1))))
    state = memory.write(memory.initial_state(1), patterns, patterns)
    queries = patterns_of(1, 40, 30, seed=3)
    there, back = memory.read(state, queries).values, backwards.read(state, queries).values
    assert torch.equal(there, memory.read(state, queries).values)
    assert not torch.equal(there, back)  # another valley for some


def test_the_couplings_stay_in_float32() -> None:
    memory = Hopfield(64).to(torch.bfloat16)
    patterns = patterns_of(1, 6, 64).bfloat16()
    state = memory.write(memory.initial_state(1), patterns, patterns)
    assert state.weights.dtype == torch.float32
    found = memory.read(state, patterns).values
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, patterns)


def test_arguments_are_checked() -> None:
    for name in ("input_size", "sweeps"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            Hopfield(**{"input_size": 3, name: 0})
    with pytest.raises(ValueError, match=r"decay must be from 0 to 1, not 1\.5"):
        Hopfield(3, decay=1.5)
    memory = Hopfield(3)
    with pytest.raises(ValueError, match=r"values must have shape \(batch, time, 3\), not \(2, 1, 4\)"):
        memory.write(memory.initial_state(2), torch.zeros(2, 1, 4), torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match="state holds 2 rows, inputs 3"):
        memory.read(memory.initial_state(2), torch.zeros(3, 1, 3))
