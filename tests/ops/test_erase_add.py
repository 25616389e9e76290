"""Writing and reading at their limits."""

import torch

from mnemos.ops.erase_add import erase_add, read


def test_to_erase_all_and_add_is_to_replace() -> None:
    memory, values = torch.randn(2, 5, 4), torch.randn(2, 1, 4)
    weights = torch.nn.functional.one_hot(torch.tensor([[3], [0]]), 5).float()
    written = erase_add(memory, weights, torch.ones(2, 1, 4), values)
    expected = memory.clone()
    expected[0, 3], expected[1, 0] = values[0, 0], values[1, 0]
    torch.testing.assert_close(written, expected)
    torch.testing.assert_close(read(written, weights), values)


def test_to_erase_nothing_is_to_add_and_weights_of_zero_leave_all_as_it_was() -> None:
    memory, values = torch.randn(2, 5, 4), torch.randn(2, 3, 4)
    weights = torch.rand(2, 3, 5).softmax(-1)
    added = erase_add(memory, weights, torch.zeros(2, 3, 4), values)
    torch.testing.assert_close(added, memory + torch.einsum("bhs,bhw->bsw", weights, values))
    assert torch.equal(erase_add(memory, torch.zeros(2, 3, 5), torch.ones(2, 3, 4), values), memory)


def test_heads_erase_one_after_the_other_then_add_in_any_order() -> None:
    memory, erasures, additions = torch.randn(2, 5, 4), torch.rand(2, 3, 4), torch.randn(2, 3, 4)
    weights = torch.rand(2, 3, 5).softmax(-1)
    expected = memory
    for head in range(3):
        expected = expected * (1 - weights[:, head].unsqueeze(2) * erasures[:, head].unsqueeze(1))
    for head in range(3):
        expected = expected + weights[:, head].unsqueeze(2) * additions[:, head].unsqueeze(1)
    torch.testing.assert_close(erase_add(memory, weights, erasures, additions), expected)
    turned = erase_add(memory, weights.flip(1), erasures.flip(1), additions.flip(1))
    torch.testing.assert_close(turned, expected)


def test_what_is_erased_whole_by_two_heads_has_finite_gradients() -> None:
    weights = torch.ones(1, 2, 1, requires_grad=True)  # one slot: both heads erase all of it
    erasures = torch.ones(1, 2, 3, requires_grad=True)
    memory = torch.randn(1, 1, 3, requires_grad=True)
    erase_add(memory, weights, erasures, torch.randn(1, 2, 3)).sum().backward()
    for leaf in (weights, erasures, memory):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_a_reading_is_the_weighted_mean_of_the_slots() -> None:
    memory = torch.randn(2, 5, 4)
    torch.testing.assert_close(read(memory, torch.full((2, 1, 5), 0.2)), memory.mean(1, keepdim=True))
