"""What only `SegmentAttention` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch
from torch import Tensor

import mnemos
from mnemos.memories.segment_attention import SegmentAttention


@pytest.fixture
def memory() -> SegmentAttention:
    torch.manual_seed(0)
    memory = SegmentAttention(6, 4, window=3, heads=2)
    with torch.no_grad():  # away from their first value of zero
        memory.content_bias.normal_()
        memory.position_bias.normal_()
    return memory


def step_by_step(memory: SegmentAttention, inputs: Tensor, mask: Tensor, reset: Tensor) -> Tensor:
    """One row, with a list for a window."""
    window: list[Tensor] = []
    outputs = []
    for x, real, fresh in zip(inputs, mask, reset, strict=True):
        if fresh:
            window = []
        if not real:
            outputs.append(torch.zeros(memory.output_size))
            continue
        window = [*window, x][-memory.window - 1 :]
        seen = torch.stack(window)
        ages = torch.arange(len(window) - 1, -1, -1)
        query = memory.query(x).view(memory.heads, 1, -1)
        keys, values = (
            project(seen).view(len(window), memory.heads, -1).transpose(0, 1)
            for project in (memory.key, memory.value)
        )
        relative = (
            memory.distance(memory._sinusoids[ages]).view(len(window), memory.heads, -1).transpose(0, 1)
        )
        scores = (query + memory.content_bias.unsqueeze(1)) @ keys.mT
        scores = scores + (query + memory.position_bias.unsqueeze(1)) @ relative.mT
        read = (scores / memory.key_size**0.5).softmax(-1) @ values
        outputs.append(memory.output(read.flatten()))
    return torch.stack(outputs)


def test_forward_is_attention_over_a_list(memory: SegmentAttention) -> None:
    inputs = torch.randn(3, 13, 6)
    mask, reset = torch.rand(3, 13) < 0.7, torch.rand(3, 13) < 0.2
    mask[0], reset[1] = True, False
    expected = torch.stack([step_by_step(memory, *row) for row in zip(inputs, mask, reset, strict=True)])
    torch.testing.assert_close(memory(inputs, mask=mask, reset=reset)[0], expected)
    head, state = memory(inputs[:, :5], mask=mask[:, :5], reset=reset[:, :5])
    tail, _ = memory(inputs[:, 5:], state, mask=mask[:, 5:], reset=reset[:, 5:])
    torch.testing.assert_close(torch.cat([head, tail], dim=1), expected)


def test_a_step_sees_the_window_and_no_more(memory: SegmentAttention) -> None:
    inputs = torch.randn(1, 12, 6, requires_grad=True)
    outputs, _ = memory(inputs)
    (slope,) = torch.autograd.grad(outputs[0, 8].sum(), inputs)
    assert slope[0].ne(0).any(dim=1).tolist() == [5 <= t <= 8 for t in range(12)]


def test_detach_stops_the_gradient_as_in_the_paper(memory: SegmentAttention) -> None:
    first, second = torch.randn(1, 5, 6, requires_grad=True), torch.randn(1, 5, 6)
    _, state = memory(first)
    carried, _ = memory(second, state)
    stopped, _ = memory(second, mnemos.detach(state))
    torch.testing.assert_close(stopped, carried)
    assert torch.autograd.grad(stopped.sum(), first, allow_unused=True) == (None,)
    assert torch.autograd.grad(carried.sum(), first)[0].ne(0).any()


def test_old_steps_are_seen_with_the_present_weights(memory: SegmentAttention) -> None:
    _, state = memory(torch.randn(1, 3, 6))
    outputs, _ = memory(torch.zeros(1, 1, 6), mnemos.detach(state))
    (slope,) = torch.autograd.grad(outputs.sum(), memory.value.weight)  # zero for the step itself
    assert slope.ne(0).any()


def test_the_state_holds_the_last_real_steps(memory: SegmentAttention) -> None:
    inputs = torch.arange(1.0, 7).view(1, 6, 1).expand(1, 6, 6)
    mask = torch.tensor([[True, True, False, True, True, False]])
    reset = torch.tensor([[False, True, False, False, False, False]])
    _, state = memory(inputs, mask=mask)
    assert state.inputs[0, :, 0].tolist() == [2, 4, 5]
    _, state = memory(inputs[:, :3], mask=mask[:, :3], reset=reset[:, :3])
    assert state.inputs[0, :, 0].tolist() == [0, 0, 2]
    assert state.filled[0].tolist() == [False, False, True]
    _, state = memory(inputs[:, 2:3], state, mask=mask[:, 2:3], reset=torch.tensor([[True]]))
    assert not state.filled.any()
    assert state.inputs.eq(0).all()


@pytest.mark.parametrize("name", ["input_size", "heads", "key_size", "window"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        SegmentAttention(**{"input_size": 3, "window": 2, name: 0})
