"""Usage and allocation where the answer is known by hand, and their gradient where products are tiny."""

import torch

from mnemos.ops.allocation import (
    allocation,
    allocation_backward,
    allocation_forward,
    allocations,
    retention,
    usage_after,
)


def doubles(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_the_freest_slot_goes_first() -> None:
    found = allocation(doubles([0.5, 0.0, 1.0, 0.2]))
    torch.testing.assert_close(found, doubles([0.0, 1.0, 0.0, 0.0]), rtol=0, atol=2e-6)
    # In the order 0.2, 0.5, 0.9: 0.8, then 0.2 * 0.5, then 0.2 * 0.5 * 0.1.
    found = allocation(doubles([0.9, 0.5, 0.2]))
    torch.testing.assert_close(found, doubles([0.01, 0.1, 0.8]), rtol=0, atol=5e-6)


def test_a_full_memory_allocates_nothing_and_an_empty_one_its_first_slot() -> None:
    assert allocation(torch.ones(2, 5)).abs().max() < 1e-6
    found = allocation(torch.zeros(2, 5))
    torch.testing.assert_close(found[:, 0], torch.ones(2), rtol=0, atol=2e-6)
    assert found[:, 1:].max() < 2e-6


def test_what_is_allocated_is_what_is_not_in_use_everywhere() -> None:
    usage = torch.rand(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(allocation(usage).sum(-1), 1 - usage.prod(-1), rtol=0, atol=1e-5)


def test_a_slot_is_used_by_writing_and_freed_by_reading() -> None:
    usage, written = doubles([0.0, 0.5, 1.0]), doubles([[0.4, 0.5, 0.0]])
    kept = retention(doubles([0.0]), doubles([[1.0, 1.0, 1.0]]))
    torch.testing.assert_close(usage_after(usage, written, kept), doubles([0.4, 0.75, 1.0]))
    kept = retention(doubles([1.0, 0.5]), doubles([[0.0, 0.0, 1.0], [0.0, 0.5, 0.0]]))
    torch.testing.assert_close(kept, doubles([1.0, 0.75, 0.0]), rtol=0, atol=2e-6)
    freed = usage_after(usage, written, kept)
    torch.testing.assert_close(freed, doubles([0.4, 0.5625, 0.0]), rtol=0, atol=2e-6)


def test_two_heads_have_both_written() -> None:
    written = doubles([[0.5, 0.0], [0.5, 0.2]])
    after = usage_after(doubles([0.0, 0.0]), written, doubles([1.0, 1.0]))
    torch.testing.assert_close(after, doubles([0.75, 0.2]))
    usage = doubles([0.0, 0.1, 1.0])
    first, second = allocations(usage, doubles([1.0, 1.0])).unbind(1)
    assert first.argmax() == 0
    assert second.argmax() == 1
    same, again = allocations(usage, doubles([0.0, 1.0])).unbind(1)
    torch.testing.assert_close(same, again)


def test_the_backward_is_right_where_many_slots_are_free() -> None:
    generator = torch.Generator().manual_seed(1)
    usage = torch.rand(4, 9, dtype=torch.float64, generator=generator).pow(6).requires_grad_()
    probe = torch.randn(4, 9, dtype=torch.float64, generator=generator)
    (expected,) = torch.autograd.grad(allocation(usage), usage, probe)
    found, order = allocation_forward(usage.detach())
    torch.testing.assert_close(found, allocation(usage).detach())
    torch.testing.assert_close(allocation_backward(order, probe), expected)
    single = usage.detach().float()
    _, order = allocation_forward(single)
    torch.testing.assert_close(
        allocation_backward(order, probe.float()), expected.float(), rtol=1e-4, atol=1e-4
    )
