"""The scan is the loop, however many blocks and however small the decays, and so are its derivatives."""

import pytest
import torch

from mnemos.ops.scan import linear_scan, linear_scan_loop


def problem(batch, time, *width, dtype=torch.float64):
    made = torch.Generator().manual_seed(time)
    decay = torch.rand(batch, time, *width, generator=made, dtype=torch.float64).to(dtype)
    inputs = torch.randn(batch, time, *width, generator=made, dtype=dtype)
    state = torch.randn(batch, *width, generator=made, dtype=dtype)
    if dtype.is_complex:
        decay = decay * torch.randn(decay.shape, generator=made, dtype=dtype).sgn()
    return [x.requires_grad_() for x in (decay, inputs, state)]


def gradients(states, given):
    loss = (states.real.sin() + states.imag.cos() if states.is_complex() else states.sin()).sum()
    return torch.autograd.grad(loss, given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("width", [(), (3,), (2, 3), (5000,)])
@pytest.mark.parametrize("time", [1, 2, 5, 17, 36])
def test_it_is_the_loop(time, width, dtype):
    given = problem(2, time, *width, dtype=dtype)
    scanned, looped = linear_scan(*given), linear_scan_loop(*given)
    torch.testing.assert_close(scanned, looped)
    torch.testing.assert_close(gradients(scanned, given), gradients(looped, given))


def test_decays_of_zero_and_one_are_exact():
    decay = (
        torch.tensor([1.0, 1e-30, 1e-30, 0.0, 1.0, 1.0, 1e-30, 1.0, 1.0, 0.0]).view(1, 10, 1).requires_grad_()
    )
    inputs, state = torch.arange(1.0, 11).view(1, 10, 1), torch.full((1, 1), 1e30)
    scanned = linear_scan(decay, inputs, state)
    torch.testing.assert_close(scanned, linear_scan_loop(decay, inputs, state), rtol=1e-6, atol=0)
    assert scanned[0, 3:6, 0].tolist() == [4, 9, 15]
    assert scanned[0, 9, 0] == 10
    (gradient,) = torch.autograd.grad(scanned[0, 3:].sum(), decay)
    assert gradient.isfinite().all()
    assert not gradient[0, :3].any()


def test_a_decay_may_be_shared():
    decay, inputs, state = (
        torch.rand(2, 7, 1, 1, requires_grad=True),
        torch.randn(2, 7, 3, 4),
        torch.randn(2, 3, 4),
    )
    scanned, looped = linear_scan(decay, inputs, state), linear_scan_loop(decay, inputs, state)
    torch.testing.assert_close(scanned, looped)
    torch.testing.assert_close(gradients(scanned, [decay]), gradients(looped, [decay]))


def test_it_is_differentiated_twice():
    given = problem(2, 5, 2)
    assert torch.autograd.gradcheck(linear_scan, given)
    assert torch.autograd.gradgradcheck(linear_scan, given)


def test_no_steps_are_no_states():
    assert linear_scan(torch.ones(2, 0, 3), torch.ones(2, 0, 3), torch.ones(2, 3)).shape == (2, 0, 3)


@pytest.mark.compiles
def test_it_is_one_operator_to_a_compiler():
    given = problem(2, 300, 4)
    compiled = torch.compile(linear_scan, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(gradients(compiled(*given), given), gradients(linear_scan_loop(*given), given))
