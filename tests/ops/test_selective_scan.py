"""The selective scan is the loop, and the loop is what the paper says."""

import pytest
import torch

from mnemos.ops.selective_scan import selective_scan, selective_scan_loop


def problem(batch, time, width, slots, dtype=torch.float64):
    made = torch.Generator().manual_seed(time)

    def normal(*shape):
        return torch.randn(shape, generator=made, dtype=dtype)

    given = [
        normal(batch, time, width),
        normal(batch, time, width).exp(),
        -normal(width, slots).exp(),
        normal(batch, time, slots),
        normal(batch, time, slots),
        normal(batch, width, slots),
    ]
    return [x.requires_grad_() for x in given]


def gradients(outputs, state, given):
    return torch.autograd.grad(outputs.sin().sum() + state.sin().sum(), given)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize(
    ("batch", "time", "width", "slots"), [(2, 1, 3, 2), (3, 16, 2, 5), (2, 39, 4, 3), (3, 20, 90, 100)]
)
def test_it_is_the_loop(batch, time, width, slots, resets):
    given = problem(batch, time, width, slots)
    reset = torch.rand(batch, time) < 0.2 if resets else None
    scanned, looped = selective_scan(*given, reset), selective_scan_loop(*given, reset)
    torch.testing.assert_close(scanned, looped)
    torch.testing.assert_close(gradients(*scanned, given), gradients(*looped, given))


def test_a_constant_step_is_the_exact_solution_for_a_held_state():
    """With nothing coming in, h(T) = exp(A T) h(0), in however many steps."""
    state = torch.ones(1, 2, 3)
    rates = -torch.rand(2, 3)
    steps, nothing = torch.full((1, 40, 2), 0.05), torch.zeros(1, 40, 3)
    _, after = selective_scan(torch.zeros(1, 40, 2), steps, rates, nothing, nothing, state)
    torch.testing.assert_close(after[0], (2 * rates).exp())


def test_a_gate_is_what_is_left_of_one_slot():
    """Gu & Dao 2023, theorem 1: with A = -1, B = 1 and one slot it is a gate between state and input."""
    inputs, logits = torch.randn(1, 9, 2), torch.randn(1, 9, 2)
    ones = torch.ones(1, 9, 1)
    # exp(-softplus(z)) = 1 - sigmoid(z); the input's share, softplus(z), is its integral's first order.
    steps = torch.nn.functional.softplus(logits)
    outputs, _ = selective_scan(inputs, steps, -torch.ones(2, 1), ones, ones, torch.zeros(1, 2, 1))
    state, expected = torch.zeros(1, 2), []
    for x, z, step in zip(inputs.unbind(1), logits.unbind(1), steps.unbind(1), strict=True):
        state = (1 - z.sigmoid()) * state + step * x
        expected.append(state)
    torch.testing.assert_close(outputs, torch.stack(expected, dim=1))


def test_a_step_of_zero_changes_nothing_and_a_long_one_forgets():
    inputs, steps, rates, writing, reading, state = (x.detach() for x in problem(1, 3, 2, 2))
    outputs, after = selective_scan(inputs, torch.zeros_like(steps), rates, writing, reading, state)
    torch.testing.assert_close(after, state)
    torch.testing.assert_close(outputs, torch.einsum("bwn,btn->btw", state, reading))
    _, after = selective_scan(torch.zeros_like(inputs), steps + 1e4, rates, writing, reading, state)
    assert not after.any()


def test_it_is_differentiated_twice():
    given = problem(2, 3, 2, 2)
    assert torch.autograd.gradcheck(selective_scan, given)
    assert torch.autograd.gradgradcheck(selective_scan, given)
    reset = torch.tensor([[False, True, False], [False, False, True]])
    assert torch.autograd.gradgradcheck(lambda *x: selective_scan(*x, reset), given)


def test_no_steps_leave_the_state():
    given = [x[:, :0] if x.dim() == 3 and number != 5 else x for number, x in enumerate(problem(2, 3, 2, 2))]
    outputs, state = selective_scan(*given)
    assert outputs.shape == (2, 0, 2)
    assert state is given[5]
