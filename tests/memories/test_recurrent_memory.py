"""What only the recurrent memories claim; the laws that they share with every memory are in the suite."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import mnemos
from mnemos.memories.associative_recurrent_memory import AssociativeRecurrentMemory
from mnemos.memories.recurrent_memory import RecurrentMemory
from mnemos.memories.segment_recurrence import BASE, SegmentLayer, SegmentRecurrence
from mnemos.ops.delta_rule import unit
from mnemos.ops.features import deterministic_parameter_free

WIDTH = 8


def recurrent(segment_size: int = 4, slots: int = 3) -> RecurrentMemory:
    torch.manual_seed(0)
    return RecurrentMemory(WIDTH, segment_size=segment_size, slots=slots, heads=2).double()


def associative(segment_size: int = 4, slots: int = 3) -> AssociativeRecurrentMemory:
    torch.manual_seed(0)
    memory = AssociativeRecurrentMemory(WIDTH, segment_size=segment_size, slots=slots, key_size=3, heads=2)
    return memory.double()


def turned(x: Tensor) -> Tensor:
    """Rotated by the position in the sequence, pair by pair as complex numbers: (time, heads, keys)."""
    half = x.shape[2] // 2
    speeds = BASE ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(len(x), dtype=torch.float64).unsqueeze(1) * speeds
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angles).unsqueeze(1)
    return torch.cat([pairs.real, pairs.imag], dim=2)


def layer_by_definition(layer: SegmentLayer, x: Tensor, visible: Tensor) -> Tensor:
    """A layer over one whole sequence of a row, (time, width)."""
    parts = layer.to_queries_keys_values(layer.before_attention(x)).unflatten(1, (3, layer.heads, -1))
    queries, keys, values = parts.unbind(1)
    scores = torch.einsum("thk,shk->hts", turned(queries), turned(keys)) / queries.shape[2] ** 0.5
    weights = scores.masked_fill(~visible, -torch.inf).softmax(2)
    x = x + layer.from_values(torch.einsum("hts,shk->thk", weights, values).flatten(1))
    gate, hidden = layer.to_hidden(layer.before_feed_forward(x)).chunk(2, dim=1)
    return x + layer.to_outputs(functional.silu(gate) * hidden)


def visible_by_definition(reads: int, steps: int, writes: int) -> Tensor:
    """Read tokens see one another, steps what came so far, written tokens everything."""
    total = reads + steps + writes
    visible = torch.ones(total, total, dtype=torch.bool).tril()
    visible[:reads, :reads] = True
    visible[reads + steps :] = True
    return visible


def recurrent_by_definition(memory: RecurrentMemory, inputs: Tensor) -> Tensor:
    """One row: [memory; segment; memory] for every segment, nothing cached."""
    tokens, outputs, slots = memory.first, [], memory.slots
    for segment in inputs.split(memory.segment_size):
        x = torch.cat([tokens, segment, tokens])
        # In an incomplete segment, positions of what would be written do not matter: no step sees it.
        visible = visible_by_definition(slots, len(segment), slots)
        for layer in memory.stack:
            x = layer_by_definition(layer, x, visible)
        _, output, tokens = memory.norm(x).split([slots, len(segment), slots])
        outputs.append(output)
    return torch.cat(outputs)


def associative_by_definition(memory: AssociativeRecurrentMemory, inputs: Tensor) -> Tensor:
    """One row: [segment; memory] for every segment, a matrix and a sum for each layer, nothing cached."""
    features = 6 * memory.key_size
    known = [
        (inputs.new_zeros(WIDTH, features), inputs.new_zeros(features)) for _ in range(len(memory.stack))
    ]
    outputs = []

    def mapped(x: Tensor) -> Tensor:
        return unit(deterministic_parameter_free(x, 3))

    for segment in inputs.split(memory.segment_size):
        x = torch.cat([segment, memory.writers])
        visible = visible_by_definition(0, len(segment), memory.slots)
        for number, layer in enumerate(memory.stack):
            parts: Any = memory.associative[number]
            matrix, total = known[number]
            queries = mapped(parts.query(x))
            x = x + queries @ matrix.T / (queries @ total).clamp_min(1e-2).unsqueeze(1)
            x = layer_by_definition(layer, x, visible)
            written = x[len(segment) :]
            keys, values = mapped(parts.key(written)), parts.value(written)
            for key, value, strength in zip(keys, values, parts.strength(written).sigmoid(), strict=True):
                before = known[number]
                answer = before[0] @ key / (before[1] @ key).clamp_min(1e-2)
                matrix = matrix + strength * torch.outer(value - answer, key)
                total = total + (1 - before[1] @ key).clamp(0, 1) * key
            known[number] = (matrix, total)
        outputs.append(memory.norm(x)[: len(segment)])
    return torch.cat(outputs)


@pytest.mark.parametrize("segment_size", [1, 3, 4, 20])
@pytest.mark.parametrize("slots", [0, 1, 3])
def test_memory_tokens_go_through_all_layers_from_segment_to_segment(segment_size: int, slots: int) -> None:
    memory, inputs = recurrent(segment_size, slots), torch.randn(2, 13, WIDTH, dtype=torch.float64)
    expected = torch.stack([recurrent_by_definition(memory, row) for row in inputs])
    torch.testing.assert_close(memory(inputs)[0], expected)


@pytest.mark.parametrize("segment_size", [1, 4, 20])
def test_every_layer_asks_and_is_told_by_segments(segment_size: int) -> None:
    memory, inputs = associative(segment_size), torch.randn(2, 13, WIDTH, dtype=torch.float64)
    expected = torch.stack([associative_by_definition(memory, row) for row in inputs])
    torch.testing.assert_close(memory(inputs)[0], expected)


def test_without_slots_it_is_causal_attention_within_blocks() -> None:
    memory, inputs = recurrent(slots=0), torch.randn(2, 12, WIDTH, dtype=torch.float64)
    alone = torch.cat([memory(block)[0] for block in inputs.split(4, dim=1)], dim=1)
    torch.testing.assert_close(memory(inputs)[0], alone)
    whole = recurrent(segment_size=12, slots=0)
    assert (whole(inputs)[0][:, 4:] - alone[:, 4:]).abs().amin(2).all()


def test_one_segment_is_a_transformer_with_memory_tokens_before_the_sequence() -> None:
    memory, inputs = recurrent(segment_size=9), torch.randn(1, 9, WIDTH, dtype=torch.float64)
    x = torch.cat([memory.first, inputs[0]])
    for layer in memory.stack:
        x = layer_by_definition(layer, x, visible_by_definition(memory.slots, 9, 0))
    torch.testing.assert_close(memory(inputs)[0][0], memory.norm(x)[memory.slots :])


def test_nothing_is_recalled_in_the_first_segment() -> None:
    memory, inputs = associative(), torch.randn(2, 4, WIDTH, dtype=torch.float64)
    plain = recurrent(slots=0)
    plain.load_state_dict(
        {n: p for n, p in memory.state_dict().items() if n.startswith(("stack", "norm"))}, False
    )
    torch.testing.assert_close(memory(inputs)[0], plain(inputs)[0])
    more = torch.cat([inputs, inputs], dim=1)
    assert (memory(more)[0] - plain(more)[0])[:, 4:].abs().amax(2).all()


@pytest.mark.parametrize("memory", [recurrent(), associative()])
def test_the_gradient_flows_through_segments_until_the_caller_detaches(memory: SegmentRecurrence) -> None:
    inputs = torch.randn(2, 12, WIDTH, dtype=torch.float64, requires_grad=True)
    outputs, _ = memory(inputs)
    (slope,) = torch.autograd.grad(outputs[:, 8:].square().sum(), inputs)
    assert slope[:, :4].abs().amax(2).all()
    _, state = memory(inputs[:, :8])
    outputs, _ = memory(inputs[:, 8:], mnemos.detach(state))
    (slope,) = torch.autograd.grad(outputs.square().sum(), inputs)
    assert not slope[:, :8].any()
    assert slope[:, 8:].any()


@pytest.mark.parametrize("memory", [recurrent(), associative()])
def test_a_memory_changes_where_a_segment_ends_and_nowhere_else(memory: SegmentRecurrence) -> None:
    state = memory.initial_state(1)
    for number, step in enumerate(torch.randn(1, 9, WIDTH, dtype=torch.float64).split(1, dim=1), start=1):
        _, after = memory(step, state)
        pairs = zip(mnemos.tree.tensors(state.memory), mnemos.tree.tensors(after.memory), strict=True)
        same = [torch.equal(before, now) for before, now in pairs]
        assert all(same) == (number % 4 != 0)
        assert after.position.item() == number % 4
        state = after


@pytest.mark.parametrize(("wrong", "name"), [({"slots": -1}, "slots"), ({"heads": 3}, "heads")])
def test_bad_sizes_are_refused(wrong: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        RecurrentMemory(WIDTH, **({"segment_size": 4, "slots": 2} | wrong))


@pytest.mark.parametrize("name", ["slots", "key_size", "segment_size"])
def test_bad_sizes_of_the_associative_form_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        AssociativeRecurrentMemory(WIDTH, **({"segment_size": 4, "slots": 2} | {name: 0}))
