"""What only `MemorizingAttention` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch
from torch import Tensor

import mnemos
from mnemos.memories.combination import Combination, HeadGate, JointSoftmax
from mnemos.memories.memorizing import MemorizingAttention
from mnemos.ops.delta_rule import unit


def small(combination: Combination | None = None, **sizes: int | None) -> MemorizingAttention:
    torch.manual_seed(0)
    given = {"window": 3, "slots": 5, "top_k": 2} | sizes
    memory = MemorizingAttention(6, 4, **given, heads=2, combination=combination)
    with torch.no_grad():  # away from their first values
        memory.distance_bias.normal_()
        memory.sharpness.normal_()
        for parameter in memory.combination.parameters():
            parameter.normal_()
    return memory


def step_by_step(memory: MemorizingAttention, inputs: Tensor) -> Tensor:
    """One row and one head after the other, with a list for what was seen."""
    outputs = []
    for now in range(len(inputs)):
        reads = []
        for head in range(memory.heads):
            query, keys, values = (
                layer(inputs[: now + 1]).unflatten(1, (memory.heads, -1))[:, head]
                for layer in (memory.query, memory.key, memory.value)
            )
            scores = unit(keys) @ unit(query[now]) * memory.sharpness[head].exp()
            ages = torch.arange(now, -1, -1)
            near = ages <= memory.window
            local = scores[near] + memory.distance_bias[head, ages[near]]
            far = (ages > memory.window) & (ages <= memory.window + memory.slots)
            found = (
                scores.masked_fill(~far, -torch.inf)
                .topk(min(memory.top_k or now + 1, int(far.sum())))
                .indices
            )
            seen, read = local.softmax(0) @ values[near], scores[found].softmax(0) @ values[found]
            if isinstance(memory.combination, HeadGate):
                share = memory.combination.bias[head].sigmoid() if len(found) else 0.0
                reads.append(share * read + (1 - share) * seen)
            else:
                together = torch.cat([local, scores[found]]).softmax(0)
                reads.append(together @ torch.cat([values[near], values[found]]))
        outputs.append(memory.output(torch.cat(reads)))
    return torch.stack(outputs)


@pytest.mark.parametrize("combination", [HeadGate(2), JointSoftmax()])
@pytest.mark.parametrize("sizes", [{}, {"top_k": None}, {"window": 1, "slots": 1}, {"slots": 7, "top_k": 6}])
def test_forward_is_attention_over_a_list(combination: Combination, sizes: dict[str, int | None]) -> None:
    memory = small(combination, **sizes)
    inputs = torch.randn(2, 50, 6)
    expected = torch.stack([step_by_step(memory, row) for row in inputs])
    torch.testing.assert_close(memory(inputs)[0], expected)
    pieces, state = [], None
    for piece in inputs.split((7, 1, 30, 12), dim=1):
        outputs, state = memory(piece, state)
        pieces.append(outputs)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected)


@pytest.mark.parametrize("top_k", [40, 41, 1000, None])
def test_as_many_as_there_are_slots_is_full_attention(top_k: int | None) -> None:
    memory = small(JointSoftmax(), slots=40, top_k=top_k)
    inputs = torch.randn(2, 44, 6)
    queries, keys, values = (
        layer(inputs).unflatten(2, (2, -1)).transpose(1, 2)
        for layer in (memory.query, memory.key, memory.value)
    )
    scores = unit(queries) @ unit(keys).mT * memory.sharpness.exp().view(2, 1, 1)
    distance = torch.arange(44).unsqueeze(1) - torch.arange(44)
    bias = memory.distance_bias[:, distance.clamp(0, 3)].where(distance <= 3, 0)
    weights = (scores + bias).masked_fill(distance < 0, -torch.inf).softmax(3)
    expected = memory.output((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(memory(inputs)[0], expected, atol=1e-5, rtol=0)


def test_the_last_slots_steps_are_found_from_the_first_wrap_on() -> None:
    memory = small(HeadGate(2), slots=10, top_k=1)
    with torch.no_grad():
        memory.combination.bias.fill_(100.0)  # the memory alone
        memory.sharpness.fill_(9.0)
        memory.query.weight.copy_(memory.key.weight)  # a step looks for one like itself
    steps = unit(torch.randn(1, 70, 6))
    expected = memory.output(memory.value(steps))
    state = None
    for start in range(0, 56, 7):  # ten is no multiple of seven
        end = start + 7
        _, state = memory(steps[:, start:end], state)
        remembered = range(max(0, end - 13 + 1), end - 3)  # beside the window of a step that comes next
        for age in remembered:
            again, _ = memory(steps[:, age : age + 1], state)
            torch.testing.assert_close(again, expected[:, age : age + 1], atol=1e-4, rtol=0)
        if end > 13:
            forgotten, _ = memory(steps[:, end - 14 : end - 13], state)
            assert (forgotten - expected[:, end - 14 : end - 13]).abs().max() > 1e-3


def test_more_slots_than_it_was_taught_with_change_nothing_but_what_is_remembered() -> None:
    memory = small(slots=5)
    larger = MemorizingAttention(6, 4, window=3, slots=50, top_k=2, heads=2)
    larger.load_state_dict(memory.state_dict())
    inputs = torch.randn(2, 20, 6)
    outputs, more = memory(inputs)[0], larger(inputs)[0]
    torch.testing.assert_close(more[:, :9], outputs[:, :9])
    assert not torch.allclose(more[:, 9:], outputs[:, 9:])


def test_no_gradient_enters_the_memory_after_detach() -> None:
    memory = small()
    first, second = torch.randn(1, 9, 6, requires_grad=True), torch.randn(1, 4, 6)
    _, state = memory(first)
    carried, _ = memory(second, state)
    stopped, _ = memory(second, mnemos.detach(state))
    torch.testing.assert_close(stopped, carried)
    assert torch.autograd.grad(stopped.sum(), first, allow_unused=True) == (None,)
    assert torch.autograd.grad(carried.sum(), first)[0].ne(0).any()


def test_a_document_does_not_find_the_one_before() -> None:
    memory = small()
    inputs = torch.randn(1, 20, 6)
    reset = torch.arange(20).eq(9).unsqueeze(0)
    packed, _ = memory(inputs, reset=reset)
    torch.testing.assert_close(packed[:, 9:], memory(inputs[:, 9:])[0])


@pytest.mark.parametrize("name", ["input_size", "heads", "key_size", "window", "slots", "top_k"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        MemorizingAttention(**{"input_size": 3, "window": 2, "slots": 2, name: 0})
