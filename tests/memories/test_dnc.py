"""What a DNC alone claims: free slots, freed slots, the order of writing, and the hand-written step."""

import pytest
import torch
from torch import Tensor

from mnemos.memories import DNC
from mnemos.memories.dnc import DNCState
from mnemos.ops import few_rows

FAR = 30.0  # a gate so far open, or closed, that nothing is left to say


def told(memory: DNC, key: Tensor | None = None, **parts: float | Tensor) -> Tensor:
    """The interface (1, ξ) of one step, by what it says; what is not named stays out of the way."""
    heads, width = memory.read_heads, memory.width
    quiet = {
        "read_keys": torch.zeros(heads * width),
        "write_keys": torch.zeros(width),
        "added": torch.zeros(width),
        "strengths": torch.full((heads + 1,), 50.0),
        "erased": torch.full((width,), FAR),
        "free": torch.full((heads,), -FAR),
        "allocating": torch.tensor([FAR]),
        "writing": torch.tensor([-FAR]),
        "modes": torch.tensor([FAR, 0.0, 0.0]).repeat_interleave(heads),
    }
    assert parts.keys() <= quiet.keys()
    given = [torch.as_tensor(parts.get(name, part)).float().expand_as(part) for name, part in quiet.items()]
    return torch.cat(given).unsqueeze(0)


def by_link(heads: int, direction: int) -> Tensor:
    return (FAR * torch.eye(3)[direction]).repeat_interleave(heads)


VALUES = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture(params=[False, True], ids=["fast", "naive"])
def memory(request) -> DNC:
    memory = DNC(2, slots=4, width=3)
    memory.naive = request.param
    return memory


def written(memory: DNC, values: Tensor) -> DNCState:
    state = memory.initial_state(1)
    for value in values:
        _, state = memory.step(told(memory, added=value, writing=FAR), state)
    return state


def place(state: DNCState, value: Tensor) -> int:
    """The slot that holds a value."""
    found = (state.memory[0] - value).abs().amax(-1)
    assert found.min() < 1e-2
    return int(found.argmin())


def test_every_write_is_allocated_a_free_slot(memory) -> None:
    state = written(memory, VALUES)
    places = [place(state, value) for value in VALUES]
    assert len(set(places)) == 3
    _, state = memory.step(told(memory), state)
    used = torch.zeros(4).index_fill(0, torch.tensor(places), 1.0)
    torch.testing.assert_close(state.usage[0], used, rtol=0, atol=1e-4)


def test_a_full_memory_loses_nothing_until_a_slot_is_freed(memory) -> None:
    full = written(memory, torch.cat([VALUES, torch.ones(1, 3)]))
    new = torch.full((3,), 7.0)
    _, after = memory.step(told(memory, added=new, writing=FAR), full)
    torch.testing.assert_close(after.memory, full.memory, rtol=0, atol=1e-2)
    _, read = memory.step(told(memory, read_keys=VALUES[1]), full)
    _, freed = memory.step(told(memory, added=new, writing=FAR, free=FAR), read)
    assert place(freed, new) == place(full, VALUES[1])
    assert [place(freed, value) for value in VALUES[::2]] == [place(full, value) for value in VALUES[::2]]


def test_content_leads_to_a_slot_and_links_from_there(memory) -> None:
    state = written(memory, VALUES)
    reads, state = memory.step(told(memory, read_keys=VALUES[1]), state)
    torch.testing.assert_close(reads[0], VALUES[1], rtol=0, atol=1e-3)
    forwards, _ = memory.step(told(memory, modes=by_link(1, 1)), state)
    torch.testing.assert_close(forwards[0], VALUES[2], rtol=0, atol=1e-3)
    backwards, _ = memory.step(told(memory, modes=by_link(1, 2)), state)
    torch.testing.assert_close(backwards[0], VALUES[0], rtol=0, atol=1e-3)


def test_what_is_written_can_be_read_in_the_same_step(memory) -> None:
    reads, _ = memory.step(
        told(memory, added=VALUES[2], writing=FAR, read_keys=VALUES[2]), memory.initial_state(1)
    )
    torch.testing.assert_close(reads[0], VALUES[2], rtol=0, atol=1e-3)


def test_erasing_what_is_freed_leaves_nothing_to_be_found() -> None:
    memory = DNC(2, slots=4, width=3, erase_freed=True)
    state = written(memory, VALUES)
    slot = place(state, VALUES[1])
    _, state = memory.step(told(memory, read_keys=VALUES[1]), state)
    _, freed = memory.step(told(memory, free=FAR), state)
    assert freed.memory[0, slot].abs().max() < 1e-3
    assert [place(freed, value) for value in VALUES[::2]] == [place(state, value) for value in VALUES[::2]]


def test_two_write_heads_take_two_slots_in_one_step() -> None:
    memory = DNC(2, slots=4, width=3, write_heads=2)
    sizes = {"keys": 9, "added": 6, "strengths": 3, "erased": 6, "free": 1, "gates": 4, "modes": 5}
    parts = {name: torch.zeros(size) for name, size in sizes.items()}
    parts["added"][:3], parts["added"][3:] = 1.0, 2.0
    parts["gates"][:] = FAR
    _, state = memory.step(torch.cat(list(parts.values())).unsqueeze(0), memory.initial_state(1))
    assert place(state, torch.full((3,), 1.0)) != place(state, torch.full((3,), 2.0))
    assert state.links.shape == (1, 2, 4, 4)


@pytest.mark.parametrize("held", [1, 2**16])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 5, 2, 1), (2, 7, 3, 4)])
def test_values_and_gradients_of_the_step_are_those_of_autograd(sizes, held, monkeypatch) -> None:
    monkeypatch.setattr(few_rows, "HELD", held)  # row by row, and all at once
    batch, slots, width, heads = sizes
    torch.manual_seed(1)
    memory = DNC(3, slots, width, heads).double()
    with torch.no_grad():
        _, state = memory(torch.randn(batch, 6, 3).double())
    given = [torch.randn(batch, memory.interface.out_features).double(), *state]
    given = [x.clone().requires_grad_() for x in given]
    outcomes = []
    for naive in (False, True):
        memory.naive = naive
        reads, after = memory.step(given[0], DNCState(*given[1:]))
        outcomes.append((reads, *after))
    fast, plain = outcomes
    torch.testing.assert_close(fast, plain)
    probes = [torch.randn_like(x) for x in plain]
    found, expected = (torch.autograd.grad(outcome, given, probes) for outcome in outcomes)
    torch.testing.assert_close(found, expected)


def test_a_sequence_keeps_one_matrix_of_links_a_step() -> None:
    memory, kept = DNC(3, slots=40, width=2), set()

    def note(tensor: Tensor) -> Tensor:
        if tensor.numel() >= 40 * 40:
            kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        memory(torch.randn(1, 6, 3))
    assert len(kept) == 7


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        DNC(3, slots=0, width=2)
    with pytest.raises(ValueError, match="write_heads must be at least 1, not 0"):
        DNC(3, slots=2, width=2, write_heads=0)
