"""What only `NTM` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch
from torch import Tensor

from mnemos.memories.ntm import NTM, NTMState

SLOTS, WIDTH = 6, 4


@pytest.fixture
def memory() -> NTM:
    """One reading and one writing head, for interfaces that are written by hand."""
    torch.manual_seed(0)
    return NTM(5, SLOTS, WIDTH)


def told(
    *,
    strength: float = 0.0,
    exponent: float = 50.0,
    gate: float = 0.0,
    shift: int = 0,
    key: Tensor | None = None,
) -> Tensor:
    """What one head is told, before its squashing functions: (parts)."""
    shifts = [100.0 * (places == shift) for places in (-1, 0, 1)]
    numbers = torch.tensor([strength, exponent, 200 * gate - 100, *shifts])
    return torch.cat([numbers, torch.ones(WIDTH) if key is None else key])


def interface(reader: Tensor, writer: Tensor, value: Tensor, erase: float = 1.0) -> Tensor:
    """The prepared input of a step: (1, prepared)."""
    return torch.cat([reader, writer, torch.full((WIDTH,), 200 * erase - 100), value]).unsqueeze(0)


def written(memory: NTM, values: Tensor) -> NTMState:
    """Each value in the slot after the last one, from the second on; the reading head stays at the first."""
    state = memory.initial_state(1)
    for value in values:
        _, state = memory.step(interface(told(), told(shift=1), value), state)
    return state


def test_a_new_memory_is_the_same_every_time_and_its_heads_stand_at_the_first_slot(memory: NTM) -> None:
    state = memory.initial_state(3)
    assert all(torch.equal(a, b) for a, b in zip(state, memory.initial_state(3), strict=True))
    assert state.memory.eq(1e-6).all()
    for weights in (state.read_weights, state.write_weights):
        assert torch.equal(weights, torch.eye(SLOTS)[:1].expand(3, 1, SLOTS))


def test_a_sequence_is_written_by_location_and_read_back_in_order(memory: NTM) -> None:
    values = torch.randn(4, WIDTH)
    state = written(memory, values)
    torch.testing.assert_close(state.memory[0, 1:5], values)
    outside = interface(told(), told(), torch.zeros(WIDTH), erase=0.0)
    reads = []
    for _ in range(4):
        forward = torch.cat([told(shift=1), outside[0, 10:]]).unsqueeze(0)
        read, state = memory.step(forward, state)
        reads.append(read)
    torch.testing.assert_close(torch.cat(reads), values)


def test_slots_go_round(memory: NTM) -> None:
    state = written(memory, torch.randn(SLOTS, WIDTH))
    torch.testing.assert_close(state.write_weights[0, 0], torch.eye(SLOTS)[0])


def test_a_slot_is_found_by_what_it_holds_and_then_the_one_after_it(memory: NTM) -> None:
    values = torch.eye(WIDTH)
    state = written(memory, values)
    idle = told()
    for shift, place in ((0, 2), (1, 3), (-1, 1)):
        seek = told(strength=100.0, gate=1.0, shift=shift, key=3 * values[2])
        read, _ = memory.step(interface(seek, idle, torch.zeros(WIDTH), erase=0.0), state)
        torch.testing.assert_close(read[0], values[place], atol=1e-4, rtol=0)


def test_what_a_step_writes_can_be_read_in_that_step(memory: NTM) -> None:
    value = torch.randn(WIDTH)
    read, _ = memory.step(interface(told(shift=1), told(shift=1), value), memory.initial_state(1))
    torch.testing.assert_close(read[0], value)


def test_heads_address_the_memory_as_the_last_step_left_it(memory: NTM) -> None:
    """A head that looks for what is written in the same step does not find it."""
    value = torch.eye(WIDTH)[0]
    seek = told(strength=100.0, gate=1.0, key=value)
    _, state = memory.step(interface(seek, told(shift=1), value), memory.initial_state(1))
    torch.testing.assert_close(state.read_weights, torch.full((1, 1, SLOTS), 1 / SLOTS))
    _, state = memory.step(interface(seek, told(), value), state)
    torch.testing.assert_close(state.read_weights[0, 0], torch.eye(SLOTS)[1])


def test_weights_stay_shares(memory: NTM) -> None:
    memory = NTM(5, SLOTS, WIDTH, read_heads=2, write_heads=3, shifts=2)
    outputs, state = memory(3 * torch.randn(4, 50, 5))
    assert outputs.shape == (4, 50, 2 * WIDTH)
    assert state.read_weights.shape == (4, 2, SLOTS)
    assert state.write_weights.shape == (4, 3, SLOTS)
    for weights in (state.read_weights, state.write_weights):
        assert weights.ge(0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))


def test_the_state_keeps_its_precision_under_autocast(memory: NTM) -> None:
    inputs = torch.randn(2, 9, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = memory(inputs)
    assert {tensor.dtype for tensor in state} == {torch.float32}
    torch.testing.assert_close(state, memory(inputs)[1], atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["input_size", "slots", "width", "read_heads", "write_heads", "shifts"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        NTM(**{"input_size": 5, "slots": SLOTS, "width": WIDTH, name: 0})
