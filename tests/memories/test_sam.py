"""Few slots a step: the same numbers as with whole tables, and a storage that does not know their number."""

import gc

import pytest
import torch

from mnemos.memories import SAM
from mnemos.memories.access_order import AccessOrder
from mnemos.memories.sam import SAMState
from mnemos.ops.sparse_access import least_recent_slots


def full(slots, batch=2, **sizes):
    """A memory every slot of which holds something, and its state."""
    torch.manual_seed(slots)
    memory = SAM(5, slots, **{"width": 6, "heads": 3, "top_k": 4, **sizes})
    state = memory.initial_state(batch)
    return memory, state._replace(memory=torch.randn(batch, slots, memory.width))


def gradients(memory, inputs, state, probe, naive):
    memory.naive = naive
    state = state._replace(memory=state.memory.clone().requires_grad_())
    inputs = inputs.clone().requires_grad_()
    outputs, after = memory(inputs, state)
    results = [outputs, after.memory, after.read.weights]
    wanted = [inputs, state.memory, *memory.parameters()]
    return results, torch.autograd.grad([(x * probe(x)).sum() for x in results], wanted)


def test_gradients_are_those_of_a_new_table_at_every_step():
    memory, state = full(64)

    def probe(x):
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(x.dim()))

    inputs = torch.randn(2, 25, 5)
    fast, slow = (gradients(memory, inputs, state, probe, naive) for naive in (False, True))
    for mine, plain in zip([*fast[0], *fast[1]], [*slow[0], *slow[1]], strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)


def test_a_part_of_the_outputs_can_be_differentiated_and_again():
    memory, state = full(20)
    inputs = torch.randn(2, 6, 5, requires_grad=True)
    outputs, _ = memory(inputs, state)
    memory.naive = True
    plain, _ = memory(inputs, state)
    for step in (2, 5, 0, 2):
        (mine,) = torch.autograd.grad(outputs[:, step].square().sum(), inputs, retain_graph=True)
        (expected,) = torch.autograd.grad(plain[:, step].square().sum(), inputs, retain_graph=True)
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


def test_neither_the_state_before_nor_the_one_after_changes_when_going_back():
    memory, state = full(30)
    before = state.memory.clone()
    outputs, after = memory(torch.randn(2, 9, 5), state)
    then = after.memory.detach().clone()
    (outputs.square().sum() + after.memory.square().sum()).backward()
    assert torch.equal(state.memory, before)
    assert torch.equal(after.memory.detach(), then)


def stored(slots, steps):
    """Numbers that are kept for the backward pass, beside those of the module and the table."""
    memory, state = full(slots, batch=1, width=8)
    tables, sizes = {slots * 8, slots}, {}

    def keep(x):
        if x.numel() not in tables:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        else:
            raise AssertionError(f"a tensor as large as the table is kept: {tuple(x.shape)}")
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        outputs, _ = memory(torch.randn(1, steps, 5), state)
    outputs.sum().backward()
    return sum(sizes.values())


def test_what_is_stored_does_not_depend_on_the_number_of_slots():
    few, many = stored(1001, 10), stored(50_001, 10)
    assert few == many
    assert stored(1001, 20) < 2.2 * few


def test_nothing_holds_the_table_when_all_is_done():
    memory, state = full(100)
    gc.collect()
    outputs, after = memory(torch.randn(2, 5, 5), state)
    outputs.sum().backward()
    table = torch.utils.weak.TensorWeakRef(after.memory)
    del outputs, after
    assert table() is None  # without the help of the garbage collector


def test_an_empty_memory_takes_no_room():
    state = SAM(5, slots=1_000_000).initial_state(3)
    assert state.memory.shape == (3, 1_000_000, 32)
    assert state.memory.untyped_storage().nbytes() == 4


def test_new_words_take_the_slots_in_order_while_nothing_is_read():
    memory = SAM(2, slots=6, width=3, heads=1, top_k=2)
    with torch.no_grad():
        memory.interface.weight[-1] = 0
        memory.interface.bias[-1] = -200  # γ: never where was read
    _, state = memory(torch.randn(1, 4, 2))
    assert (state.memory[0] != 0).any(1).tolist() == [True] * 4 + [False] * 2


def test_a_slot_that_is_read_stays_and_the_one_that_is_not_goes():
    memory = SAM(2, slots=3, width=3, heads=1, top_k=1)
    memory.naive = True
    state = memory.initial_state(1)._replace(memory=torch.eye(3).unsqueeze(0))
    query = torch.tensor([[1.0, 0, 0]])
    for word in (5.0, 7.0):  # slot 0 is the least recent, is emptied and so written anew; then slot 1 is
        told = torch.cat([word * query, query, torch.tensor([[9.0, 200, -200]])], dim=1)
        _, state = memory.step(told, state)
    assert state.memory[0, :, 0].tolist() == [5, 7, 0]
    assert state.read.slots.item() in (0, 1)
    told = torch.cat([0 * query, query, torch.tensor([[9.0, -200, 0]])], dim=1)
    _, state = memory.step(told, state)
    assert least_recent_slots(state.last_access, 3)[0, 0] == 2  # emptied, but nothing was written there


@pytest.mark.parametrize("slots", [1, 2, 63, 64, 65, 1000])
def test_the_order_of_access_is_that_of_all_slots(slots):
    generator = torch.Generator().manual_seed(slots)
    stamps = torch.rand(2, slots, generator=generator).argsort(1)
    order, plain = AccessOrder(stamps), stamps.clone()
    for step in range(1, 40):
        count = 1 + step % 5
        assert torch.equal(order.least_recent(count), least_recent_slots(plain, count))
        touched = torch.randint(slots, (2, 7), generator=generator)
        touched[:, 0] = order.least_recent(1)[:, 0]
        when = (step * slots + touched) * (torch.rand(2, 7, generator=generator) < 0.7)
        plain = plain.scatter_reduce(1, touched, when, "amax")
        order.touch(touched, when)
        if step == 20:
            plain[1] = torch.arange(slots)
            order.start_afresh(torch.tensor([False, True]))
    assert torch.equal(order.end(), plain)


def test_fewer_slots_than_are_wanted_are_read():
    memory = SAM(2, slots=2, width=3, heads=1, top_k=4)
    outputs, state = memory(torch.randn(1, 3, 2))
    assert isinstance(state, SAMState)
    assert state.read.weights.shape == (1, 1, 2)
    torch.testing.assert_close(state.read.weights.sum(2), torch.ones(1, 1))
    assert outputs.isfinite().all()


def test_the_error_says_which_argument_is_wrong():
    with pytest.raises(ValueError, match="top_k must be at least 1, not 0"):
        SAM(3, top_k=0)
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, time, 3\)"):
        SAM(3)(torch.zeros(2, 4, 7))
