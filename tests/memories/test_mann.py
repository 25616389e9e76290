"""Written where it was read last or used least; what is in a slot is what was said."""

import pytest
import torch

from mnemos.memories import MANN
from mnemos.memories.mann import MANNState


def told(keys, additions, strengths, gates):
    """What `prepare` gives for these, head by head."""
    return torch.cat([keys, additions, strengths.unsqueeze(-1), gates.unsqueeze(-1)], dim=-1).flatten(1)


def used(heads=1, slots=4, width=3, *, writes_keys=False):
    torch.manual_seed(0)
    memory = MANN(2, slots, width, heads, writes_keys=writes_keys)
    state = MANNState(
        torch.randn(2, slots, width), torch.rand(2, heads, slots).softmax(-1), torch.rand(2, slots)
    )
    return memory, state


def test_with_the_gate_shut_the_least_used_slot_holds_the_vector_and_the_others_what_they_held():
    memory, state = used()
    keys, additions = torch.randn(2, 2, 1, 3)
    _, after = memory.step(told(keys, additions, torch.zeros(2, 1), torch.full((2, 1), -200.0)), state)
    for row, least in enumerate(state.usage.argmin(1).tolist()):
        torch.testing.assert_close(after.memory[row, least], additions[row, 0])
        others = [slot for slot in range(4) if slot != least]
        assert torch.equal(after.memory[row, others], state.memory[row, others])


def test_with_the_gate_open_the_vector_is_added_where_was_read_last():
    memory, state = used()
    keys, additions = torch.randn(2, 2, 1, 3)
    _, after = memory.step(told(keys, additions, torch.zeros(2, 1), torch.full((2, 1), 200.0)), state)
    least = torch.nn.functional.one_hot(state.usage.argmin(1), 4).unsqueeze(2)
    expected = state.memory * (1 - least) + state.read_weights[:, 0].unsqueeze(2) * additions
    torch.testing.assert_close(after.memory, expected)


def test_heads_write_to_slots_of_their_own():
    memory, state = used(heads=2)
    keys, additions = torch.randn(2, 2, 2, 3)
    _, after = memory.step(told(keys, additions, torch.zeros(2, 2), torch.full((2, 2), -200.0)), state)
    order = state.usage.argsort(1)
    for row in range(2):
        torch.testing.assert_close(after.memory[row, order[row, :2]], additions[row])


def test_a_strong_key_reads_the_slot_that_is_like_it_and_not_the_one_just_written():
    memory, state = used()
    state = state._replace(usage=torch.tensor([[0.0, 1.0, 1.0, 1.0]]).repeat(2, 1))
    keys = 3 * state.memory[:, 2:3]
    interface = told(keys, torch.randn(2, 1, 3), torch.full((2, 1), 1e4), torch.full((2, 1), -200.0))
    reads, after = memory.step(interface, state)
    assert after.read_weights.argmax(2).flatten().tolist() == [2, 2]
    torch.testing.assert_close(reads, state.memory[:, 2], rtol=1e-3, atol=1e-3)


def test_a_head_that_writes_its_key_finds_what_it_has_just_written():
    """The paper's form. Writing comes first: of all slots the newest is the most similar."""
    memory, state = used(writes_keys=True)
    keys = torch.randn(2, 1, 3)
    interface = told(keys, torch.empty(2, 1, 0), torch.full((2, 1), 1e4), torch.full((2, 1), -200.0))
    reads, after = memory.step(interface, state)
    assert after.read_weights.argmax(2).flatten().tolist() == state.usage.argmin(1).tolist()
    torch.testing.assert_close(reads, keys[:, 0], rtol=1e-3, atol=1e-3)


def test_slots_are_taken_one_after_the_other():
    """With the gate shut every step uses a slot that was not used, as long as there are any."""
    torch.manual_seed(0)
    memory = MANN(2, slots=6, width=3, heads=1)
    with torch.no_grad():
        memory.interface.bias[-1] = -200
        memory.interface.weight[-1] = 0
    _, state = memory(torch.randn(1, 4, 2))
    assert (state.memory[0] != 0).any(1).tolist() == [True] * 4 + [False] * 2


def test_the_error_says_which_argument_is_wrong():
    with pytest.raises(ValueError, match=r"decay must lie between 0 and 1, not 1\.5"):
        MANN(3, decay=1.5)
    with pytest.raises(ValueError, match="heads must be at least 1, not 0"):
        MANN(3, heads=0)
