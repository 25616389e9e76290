"""Discretisations against the equation they stand for, and three ways to run a state space that agree."""

import pytest
import torch

from mnemos.ops.state_space import (
    bilinear,
    inverse_poles,
    linear_poles,
    state_space_convolution,
    state_space_loop,
    state_space_scan,
    zero_order_hold,
)


def problem(batch, time, width, slots, rule=zero_order_hold):
    made = torch.Generator().manual_seed(time)

    def normal(*shape, dtype=torch.complex128):
        return torch.randn(shape, generator=made, dtype=dtype)

    poles = torch.complex(-normal(width, slots).real.exp(), 5 * normal(width, slots).real)
    space = rule(poles, torch.full((width,), 0.1, dtype=torch.float64))
    given = [
        normal(batch, time, width, dtype=torch.float64),
        *space,
        normal(width, slots),
        normal(batch, width, slots),
    ]
    return [x.detach().requires_grad_() for x in given]


def gradients(outputs, state, given):
    return torch.autograd.grad(outputs.sin().sum() + state.real.sin().sum() + state.imag.cos().sum(), given)


@pytest.mark.parametrize("time", [1, 2, 3, 16, 17, 40])
def test_the_convolution_and_the_scan_are_the_loop(time):
    given = problem(2, time, 3, 4)
    all_real = torch.ones(2, time, dtype=torch.bool)
    looped = state_space_loop(*given, all_real, ~all_real)
    expected = gradients(*looped, given)
    for run in (state_space_convolution(*given), state_space_scan(*given, all_real, ~all_real)):
        torch.testing.assert_close(run, looped)
        torch.testing.assert_close(gradients(*run, given), expected)


def test_the_scan_is_the_loop_where_steps_are_masked_and_rows_reset():
    given = problem(3, 30, 2, 3)
    real, reset = torch.rand(3, 30) < 0.7, torch.rand(3, 30) < 0.1
    looped, scanned = state_space_loop(*given, real, reset), state_space_scan(*given, real, reset)
    torch.testing.assert_close(scanned, looped)
    torch.testing.assert_close(gradients(*scanned, given), gradients(*looped, given))


def test_holding_is_exact_and_the_bilinear_rule_is_of_second_order():
    """x' = a x + sin t from rest has a closed form."""
    pole, end = torch.tensor([[-0.7 + 3j]], dtype=torch.complex128), 2.0
    for rule, order, midpoint in ((zero_order_hold, 2, True), (bilinear, 2, False)):
        errors = []
        for count in (200, 400):
            size = end / count
            logarithms, writing = rule(pole, torch.tensor([size], dtype=torch.float64))
            times = size * (torch.arange(count, dtype=torch.float64) + (0.5 if midpoint else 0))
            driven = times.sin()
            if not midpoint:  # Tustin's rule takes the mean of the input at both ends
                driven = (driven + (times + size).sin()) / 2
            state = torch.zeros(1, 1, 1, dtype=torch.complex128)
            ones = torch.ones(1, count, dtype=torch.bool)
            _, state = state_space_loop(
                driven.view(1, -1, 1), logarithms, writing, writing, state, ones, ~ones
            )
            a, t = pole[0, 0], torch.tensor(end, dtype=torch.float64)
            exact = ((a * t).exp() - t.cos() - a * t.sin()) / (1 + a * a)
            errors.append((state[0, 0, 0] - exact).abs().item())
        assert errors[0] < 1e-3
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_small_steps_lose_no_digits():
    poles = torch.tensor([[-0.5 + 3j, -1 + 0j]])
    steps = torch.tensor([1e-6])
    _, writing = zero_order_hold(poles, steps)
    torch.testing.assert_close(writing, steps * (1 + steps * poles / 2), rtol=1e-6, atol=0)


def test_poles_are_those_of_the_paper():
    assert linear_poles(8).tolist() == pytest.approx([complex(-0.5, n * torch.pi) for n in range(4)])
    expected = [complex(-0.5, 8 / torch.pi * (8 / (2 * n + 1) - 1)) for n in range(4)]
    assert inverse_poles(8).tolist() == pytest.approx(expected)
