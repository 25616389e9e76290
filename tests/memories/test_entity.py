import pytest
import torch

from mnemos.memories import EntNet
from mnemos.memories.entity import EntNetState


@torch.no_grad()
def test_a_step_is_the_papers_equations_slot_by_slot():
    torch.manual_seed(0)
    memory = EntNet(4, slots=3)
    memory.slope.copy_(torch.tensor([0.3, 0.2, 0.0, 1.0]))
    sentence, held = torch.randn(1, 4), torch.nn.functional.normalize(torch.randn(1, 3, 4), dim=-1)
    _, after = memory.step(memory.prepare(sentence), EntNetState(held))
    for j in range(3):
        s, h, w = sentence[0], held[0, j], memory.keys[j]
        gate = torch.sigmoid(s @ h + s @ w)
        new = memory.from_memory.weight @ h + memory.from_keys.weight @ w + memory.from_input.weight @ s
        new = torch.where(new > 0, new, memory.slope * new)
        new = h + gate * new
        torch.testing.assert_close(after.memory[0, j], new / new.norm(), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_gate_that_is_closed_keeps_and_one_that_is_open_writes():
    memory = EntNet(2, slots=2)
    memory.keys.copy_(torch.tensor([[40.0, 0.0], [-40.0, 0.0]]))
    held = EntNetState(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]))
    for linear in (memory.from_memory, memory.from_keys):
        linear.weight.zero_()
    memory.from_input.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
    _, after = memory.step(memory.prepare(torch.tensor([[1.0, 0.0]])), held)
    torch.testing.assert_close(after.memory[0, 0], torch.tensor([3.0, 1.0]) / 10**0.5)
    torch.testing.assert_close(after.memory[0, 1], torch.tensor([0.0, 1.0]))


@torch.no_grad()
def test_what_is_read_is_the_slot_that_fits_the_question():
    memory = EntNet(2, slots=3)
    state = EntNetState(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]]))
    reading = memory.read(state, torch.tensor([[[0.0, 200.0], [0.0, 0.0]]]))
    torch.testing.assert_close(reading.values[0, 0], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(reading.weights[0, 1], torch.full((3,), 1 / 3))


def test_slots_begin_as_their_keys_and_have_length_one_after_a_step():
    memory = EntNet(4, slots=3)
    assert torch.equal(memory.initial_state(2).memory, memory.keys.expand(2, 3, 4))
    _, state = memory(torch.randn(2, 5, 4))
    torch.testing.assert_close(state.memory.norm(dim=-1), torch.ones(2, 3))
    with pytest.raises(ValueError, match="slots must be at least 1"):
        EntNet(4, slots=0)
