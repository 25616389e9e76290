"""What only `DeltaRule` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch

from mnemos import detach
from mnemos.memories.delta_rule import DeltaRule


@pytest.fixture
def memory() -> DeltaRule:
    torch.manual_seed(0)
    return DeltaRule(6, 4, heads=2, key_size=8, value_size=3, chunk_size=4)


def test_a_key_answers_its_last_value(memory: DeltaRule) -> None:
    keys = torch.randn(2, 3, 16)[:, [0, 1, 2, 1]] * torch.tensor([1.0, 30.0, 0.1, 2.0]).view(1, 4, 1)
    values = torch.randn(2, 4, 6)
    state = memory.write(memory.initial_state(2), keys[:, :2], values[:, :2])
    state = memory.write(state, keys[:, 2:], values[:, 2:])
    read = memory.read(state, keys[:, 3:] * 5)  # a key's length says nothing
    torch.testing.assert_close(read.values, values[:, 3:])


def test_strength_is_how_far_the_answer_moves(memory: DeltaRule) -> None:
    key, value = torch.randn(1, 1, 16), torch.randn(1, 1, 6)
    state = memory.write(memory.initial_state(1), key, value, strength=torch.tensor([[0.25]]))
    torch.testing.assert_close(memory.read(state, key).values, 0.25 * value)
    per_head = memory.write(memory.initial_state(1), key, value, strength=torch.tensor([[[1.0, 0.0]]]))
    expected = value * torch.tensor([1.0, 1, 1, 0, 0, 0])
    torch.testing.assert_close(memory.read(per_head, key).values, expected)


def test_a_reading_is_its_weights_times_the_columns(memory: DeltaRule) -> None:
    state = memory.write(memory.initial_state(2), torch.randn(2, 5, 16), torch.randn(2, 5, 6))
    values, weights, slots = memory.read(state, torch.randn(2, 7, 16))
    assert slots.shape == weights.shape == (2, 7, 16)
    columns = torch.zeros(2, 6, 16)  # both heads in one matrix
    columns[:, :3, :8], columns[:, 3:, 8:] = state.weights[:, 0], state.weights[:, 1]
    torch.testing.assert_close(torch.einsum("bws,bts->btw", columns, weights), values)


def test_forward_reads_what_was_known_before(memory: DeltaRule) -> None:
    inputs = torch.randn(1, 6, 6)
    outputs, _ = memory(inputs)
    assert outputs[:, 0].eq(0).all()  # nothing is known before the first step
    changed = inputs.clone()
    changed[:, -1] += 1
    queries, *_ = memory.project(changed)
    _, state = memory(inputs[:, :-1])
    torch.testing.assert_close(
        memory(changed)[0][:, -1:], memory.emit(memory.read(state, queries[:, -1:]).values)
    )


def test_the_fast_weights_stay_in_float32(memory: DeltaRule) -> None:
    inputs = torch.randn(2, 9, 6)
    exact, expected = memory(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, state = memory(inputs)
    assert state.weights.dtype == torch.float32
    torch.testing.assert_close(outputs.float(), exact, atol=0.05, rtol=0.05)
    torch.testing.assert_close(state, expected, atol=0.05, rtol=0.05)
    outputs, state = memory.to(torch.bfloat16)(inputs.bfloat16())
    assert outputs.dtype == torch.bfloat16
    assert state.weights.dtype == torch.float32
    torch.testing.assert_close(outputs.float(), exact, atol=0.05, rtol=0.05)


def test_padding_may_hold_anything(memory: DeltaRule) -> None:
    inputs, real = torch.randn(2, 7, 6), torch.rand(2, 7) < 0.5
    spoiled = inputs.masked_fill(~real.unsqueeze(-1), torch.nan).requires_grad_()
    outputs, state = memory(spoiled, mask=real)
    expected = memory(inputs, mask=real)
    torch.testing.assert_close((outputs, state), expected)
    (outputs.sum() + state.weights.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in memory.parameters())


def test_truncated_backpropagation_needs_only_detach(memory: DeltaRule) -> None:
    first, second = torch.randn(1, 5, 6, requires_grad=True), torch.randn(1, 5, 6)
    _, state = memory(first)
    outputs, _ = memory(second, detach(state))
    outputs.sum().backward()
    assert first.grad is None


@pytest.mark.parametrize("name", ["input_size", "heads", "key_size", "value_size", "chunk_size"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        DeltaRule(**{"input_size": 3, name: 0})
