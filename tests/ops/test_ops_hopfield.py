"""Limits, equalities and invariants of the three kinds of network."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from mnemos.ops.hopfield import (
    association,
    asynchronous,
    continuous_energy,
    dense_asynchronous,
    energy,
    exponential,
    hebb,
    polynomial,
    pseudo_inverse,
    retrieve,
    signs,
    storkey,
    synchronous,
)


def random_patterns(*shape: int, seed: int = 0) -> torch.Tensor:
    return signs(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def written(rule, patterns: torch.Tensor) -> torch.Tensor:
    weights = patterns.new_zeros(*patterns.shape[:-2], patterns.shape[-1], patterns.shape[-1])
    for pattern in patterns.unbind(-2):
        weights = weights + rule(weights, pattern)
    return weights


def test_the_sign_of_zero_is_plus() -> None:
    assert signs(torch.tensor([-2.0, -0.0, 0.0, 3.0])).tolist() == [-1, 1, 1, 1]


# The rules


def test_hebb_is_the_mean_outer_product_without_its_diagonal() -> None:
    patterns = random_patterns(2, 7, 20)
    expected = patterns.mT @ patterns / 20
    expected.diagonal(dim1=-2, dim2=-1).zero_()
    torch.testing.assert_close(written(hebb, patterns), expected)


def test_storkey_is_its_formula_unit_by_unit() -> None:
    patterns, size = random_patterns(4, 6), 6
    weights = [[0.0] * size for _ in range(size)]
    for xi in patterns.tolist():

        def field(i: int, j: int, weights=weights, xi=xi) -> float:
            return sum(weights[i][k] * xi[k] for k in range(size) if k not in (i, j))

        weights = [
            [
                0.0
                if i == j
                else weights[i][j] + (xi[i] * xi[j] - xi[i] * field(j, i) - field(i, j) * xi[j]) / size
                for j in range(size)
            ]
            for i in range(size)
        ]
    torch.testing.assert_close(written(storkey, patterns), torch.tensor(weights, dtype=torch.float64))


def test_pseudo_inverse_pattern_by_pattern_is_the_projection_on_all() -> None:
    patterns = random_patterns(2, 15, 20)
    expected = torch.linalg.pinv(patterns) @ patterns
    torch.testing.assert_close(written(pseudo_inverse, patterns), expected)
    torch.testing.assert_close(patterns @ written(pseudo_inverse, patterns), patterns)


def test_a_pattern_that_the_others_span_changes_nothing() -> None:
    patterns = random_patterns(5, 20)
    weights = written(pseudo_inverse, patterns)
    for known in (patterns[2], -patterns[4]):
        assert not pseudo_inverse(weights, known).any()
    everything = written(pseudo_inverse, random_patterns(40, 20))  # more than there are units
    torch.testing.assert_close(everything, torch.eye(20, dtype=torch.float64))


@pytest.mark.parametrize("rule", [hebb, storkey, pseudo_inverse])
def test_couplings_stay_symmetric(rule) -> None:
    weights = written(rule, random_patterns(9, 20))
    torch.testing.assert_close(weights, weights.mT)


# Dynamics


@pytest.mark.parametrize("rule", [hebb, storkey, pseudo_inverse])
def test_no_asynchronous_step_raises_the_energy(rule) -> None:
    weights, states = written(rule, random_patterns(12, 30)), random_patterns(8, 30, seed=1)
    before = energy(weights, states)
    for step in range(600):
        states = asynchronous(weights, states, order=[7 * step % 30])
        now = energy(weights, states)
        assert (now <= before + 1e-12).all()
        before = now
    assert torch.equal(asynchronous(weights, states, 5), states)  # at the bottom, where all units agree


def test_synchronous_steps_can_go_in_a_circle_where_asynchronous_ones_settle() -> None:
    weights = torch.tensor([[0.0, -1.0], [-1.0, 0.0]])  # two units that want to differ
    states = torch.tensor([[1.0, 1.0]])
    assert synchronous(weights, states, 7).tolist() == [[-1, -1]]
    assert synchronous(weights, states, 8).tolist() == [[1, 1]]
    assert asynchronous(weights, states, 8).tolist() == [[-1, 1]]
    assert asynchronous(weights, states, 8, order=[1, 0]).tolist() == [[1, -1]]


@pytest.mark.parametrize("dynamics", [synchronous, asynchronous])
def test_without_a_field_units_stay_whatever_the_diagonal(dynamics) -> None:
    states = random_patterns(3, 9)
    assert torch.equal(dynamics(torch.zeros(9, 9, dtype=torch.float64), states, 3), states)
    assert torch.equal(dynamics(-5 * torch.eye(9, dtype=torch.float64), states, 3), states)
    assert energy(torch.eye(9, dtype=torch.float64), states).abs().max() == 0


def test_stopping_early_changes_nothing(monkeypatch) -> None:
    weights, states = written(hebb, random_patterns(4, 40)), random_patterns(5, 40, seed=1)
    dense = random_patterns(6, 40)
    early = [
        asynchronous(weights, states, 12),
        synchronous(weights, states, 12),
        dense_asynchronous(dense, states, exponential, 12),
    ]
    monkeypatch.setattr("mnemos.ops.hopfield._settled", lambda *_: False)
    late = [
        asynchronous(weights, states, 12),
        synchronous(weights, states, 12),
        dense_asynchronous(dense, states, exponential, 12),
    ]
    assert all(map(torch.equal, early, late))


# Dense networks


def test_the_square_is_the_classical_network() -> None:
    patterns, states = random_patterns(5, 41), random_patterns(20, 41, seed=1)
    classical = asynchronous(written(hebb, patterns), states, 10)
    dense = dense_asynchronous(patterns, states, partial(polynomial, degree=2), 10)
    assert torch.equal(dense, classical)
    overlaps = states @ patterns.mT  # -Σ x²/N² is 2/N times the energy, but for the diagonal
    expected = (2 * energy(written(hebb, patterns), states) - 5) / 41
    torch.testing.assert_close(polynomial(overlaps, 41, 2), expected)


@pytest.mark.parametrize("separation", [exponential, partial(polynomial, degree=3)])
def test_units_take_the_sign_of_lower_energy(separation) -> None:
    patterns, states = random_patterns(30, 10), random_patterns(6, 10, seed=1)
    before = separation(states @ patterns.mT, 10)
    for _ in range(4):
        states = dense_asynchronous(patterns, states, separation)
        now = separation(states @ patterns.mT, 10)
        assert (now <= before + 1e-12).all()
        before = now
    for unit in range(10):
        flipped = states.clone()
        flipped[:, unit] *= -1
        assert (separation(flipped @ patterns.mT, 10) >= before - 1e-6).all()


def test_the_exponential_is_demircigils_sum() -> None:
    overlaps = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(exponential(overlaps, 9), -overlaps.exp().sum(-1).log())
    assert exponential(torch.tensor([[2e4, -1e4]]), 9).item() == -2e4  # where exp would be infinite


def test_a_slot_of_zeros_stores_nothing() -> None:
    patterns, states = random_patterns(3, 25), random_patterns(5, 25, seed=1)
    padded = torch.cat([patterns, torch.zeros(7, 25, dtype=torch.float64)])
    for separation in (exponential, partial(polynomial, degree=4)):
        expected = dense_asynchronous(patterns, states, separation, 5)
        assert torch.equal(dense_asynchronous(padded, states, separation, 5), expected)
    assert torch.equal(dense_asynchronous(0 * patterns, states, exponential, 5), states)


# The continuous network


def continuous(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    shapes = [(2, 5, 8), (2, 11, 8), (2, 11, 3)]
    return [torch.randn(shape, generator=made, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_an_update_is_the_papers_formula(steps: int) -> None:
    queries, keys, values = continuous()
    state = queries
    for _ in range(steps - 1):
        state = torch.softmax(0.7 * state @ keys.mT, -1) @ keys
    weights = torch.softmax(0.7 * state @ keys.mT, -1)
    torch.testing.assert_close(association(queries, keys, 0.7, steps), weights)
    found = retrieve(queries, keys, values, 0.7, steps)
    torch.testing.assert_close(found, weights @ values)
    probe = torch.randn_like(found)
    actual = torch.autograd.grad(found, (queries, keys, values), probe)
    expected = torch.autograd.grad(weights @ values, (queries, keys, values), probe)
    torch.testing.assert_close(actual, expected)


def test_one_update_is_attention() -> None:
    queries, keys, values = continuous(dtype=torch.float32)
    expected = functional.scaled_dot_product_attention(queries, keys, values)
    found = retrieve(queries, keys, values, 8**-0.5)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(association(queries, keys, 8**-0.5) @ values, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [1, 3])
def test_where_nothing_is_stored_the_answer_is_zero_and_so_are_its_gradients(steps: int) -> None:
    queries, keys, values = continuous()
    stored = torch.rand(2, 5, 11) < 0.5
    stored[0] = False
    stored[1, 2] = False
    found = retrieve(queries, keys, values, 0.7, steps, stored)
    weights = association(queries, keys, 0.7, steps, stored)
    torch.testing.assert_close(weights @ values, found)
    assert not weights[~stored].any()
    assert not found[0].any()
    assert not found[1, 2].any()
    for result in (found, weights, continuous_energy(queries, keys, 0.7, stored)):
        gradients = torch.autograd.grad(result.sum(), (queries, keys, values), allow_unused=True)
        assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    assert retrieve(queries, keys[:, :0], values[:, :0], 0.7, steps).abs().max() == 0


def test_what_is_left_out_might_not_be_there() -> None:
    queries, keys, values = continuous()
    stored = (torch.arange(11) < 6).expand(2, 1, 11)
    found = retrieve(queries, keys, values, 0.7, 3, stored)
    torch.testing.assert_close(found, retrieve(queries, keys[:, :6], values[:, :6], 0.7, 3))
    depth = continuous_energy(queries, keys, 0.7, stored)
    torch.testing.assert_close(depth, continuous_energy(queries, keys[:, :6], 0.7))


def test_no_update_raises_the_energy_and_none_is_below_zero() -> None:
    queries, keys, _ = continuous()
    for beta in (0.01, 0.5, 5.0):
        depths = [continuous_energy(queries, keys, beta)]
        for steps in range(1, 8):
            depths.append(continuous_energy(retrieve(queries, keys, keys, beta, steps), keys, beta))
        depth = torch.stack(depths)
        assert (depth.diff(dim=0) <= 1e-12).all()
        assert (depth >= 0).all()
    nothing = torch.zeros(2, 1, 11, dtype=torch.bool)
    torch.testing.assert_close(continuous_energy(queries, keys, 0.5, nothing), queries.square().sum(-1) / 2)


def test_the_limits_of_temperature_are_the_mean_and_the_nearest() -> None:
    queries, keys, values = continuous()
    mean = values.mean(1, keepdim=True).expand(-1, 5, -1)
    torch.testing.assert_close(retrieve(queries, keys, values, 1e-9, 3), mean, atol=1e-6, rtol=0)
    nearest = (queries @ keys.mT).argmax(-1)
    best = values.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 3))
    torch.testing.assert_close(retrieve(queries, keys, values, 1e6), best)


def test_gradients_are_right() -> None:
    queries, keys, values = continuous()
    stored = torch.rand(2, 5, 11) < 0.7
    assert torch.autograd.gradcheck(lambda *x: retrieve(*x, 0.7, 3, stored), (queries, keys, values))
    assert torch.autograd.gradcheck(lambda *x: continuous_energy(*x, 0.7, stored), (queries, keys))
