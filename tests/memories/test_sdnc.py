"""Sparse access that follows the order of writing, and nothing else where it does not."""

import pytest
import torch

from mnemos.memories import SAM, SDNC
from mnemos.tree import map_tensors, nbytes


def full(slots, batch=2, **sizes):
    torch.manual_seed(slots)
    memory = SDNC(5, slots, **{"width": 6, "heads": 2, "top_k": 3, "links": 4, **sizes})
    state = memory.initial_state(batch)
    return memory, state._replace(memory=torch.randn(batch, slots, memory.width))


def asked(memory, word, query, numbers):
    """What a controller of one head says in a step."""
    return torch.cat([torch.tensor([word]), torch.tensor([query]), torch.tensor([numbers])], dim=1)


WRITE, READ = (9.0, 200, -200), (9.0, -200, 0)  # strength, α, γ: to a new slot; nothing
CONTENT, FORWARD, BACKWARD = (99.0, 0, 0), (0.0, 99, 0), (0.0, 0, 99)


@pytest.mark.parametrize("naive", [False, True])
def test_what_was_written_is_read_in_order_forwards_and_backwards(naive):
    memory = SDNC(2, slots=9, width=4, heads=1, top_k=2)
    memory.naive = naive
    memory.prepare = lambda inputs: inputs
    words = torch.eye(4)
    steps = [asked(memory, word, [0, 0, 0, 0], WRITE + CONTENT) for word in words.tolist()]
    nothing = [0.0] * 4
    steps.append(asked(memory, nothing, words[0].tolist(), READ + CONTENT))
    steps += 3 * [asked(memory, nothing, nothing, READ + FORWARD)]
    steps += 3 * [asked(memory, nothing, nothing, READ + BACKWARD)]
    stretch, state = memory.stretch(memory.initial_state(1)), memory.initial_state(1)
    outputs = []
    for step in steps:
        if naive:
            output, state = memory.step(step, state)
        else:
            output = stretch.step(step, None, None)
        outputs.append(output[0])
    # A cosine of 0 beside one of 1, at a strength of 10: the word that was asked for, and traces of another.
    assert (torch.stack(outputs[4:]) @ words.T).argmax(1).tolist() == [0, 1, 2, 3, 2, 1, 0]


def test_gradients_are_those_of_a_new_table_at_every_step():
    memory, state = full(40)
    inputs = torch.randn(2, 15, 5)
    found = []
    for naive in (False, True):
        memory.naive = naive
        begin = state.memory.clone().requires_grad_()
        given = inputs.clone().requires_grad_()
        outputs, after = memory(given, state._replace(memory=begin))
        results = [outputs, after.memory, after.read.weights]
        loss = sum((x * torch.cos(torch.arange(x.numel()).view(x.shape))).sum() for x in results)
        gradients = torch.autograd.grad(loss, [given, begin, *memory.parameters()])
        found.append([*results, *after.links, *gradients])
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("naive", [False, True])
def test_that_reads_by_content_alone_it_is_sparse_access_memory(naive):
    torch.manual_seed(0)
    linked, plain = SDNC(5, 20, 6, heads=2), SAM(5, 20, 6, heads=2)
    linked.naive = naive
    with torch.no_grad():
        for name in ("weight", "bias"):
            parts = getattr(linked.interface, name).view(2, 18, -1)
            getattr(plain.interface, name).view(2, 15, -1).copy_(parts[:, :15])
            parts[:, 15:] = 0
        linked.interface.bias.view(2, 18)[:, 15] = 200
    inputs = torch.randn(3, 12, 5)
    mine, after = linked(inputs)
    expected, state = plain(inputs)
    torch.testing.assert_close(mine, expected)
    torch.testing.assert_close(after[:3], state[:3])


def test_an_index_that_looks_everywhere_reads_what_comparing_with_all_reads():
    memory, state = full(60)
    looked, _ = full(60, probes=1000)
    looked.load_state_dict(memory.state_dict())
    inputs = torch.randn(2, 8, 5)
    for start in (state, memory.initial_state(2)):  # of an empty one the index finds nothing
        outputs, after = memory(inputs, start)
        same, state = looked(inputs, start)
        torch.testing.assert_close(same, outputs)
        torch.testing.assert_close(state, after)


def test_what_is_stored_does_not_depend_on_the_number_of_slots():
    kept = []
    for slots in (1001, 20_001):
        memory, state = full(slots, batch=1)
        sizes = {}

        def keep(x, sizes=sizes, slots=slots):
            assert x.dim() < 2 or x.shape[1] != slots, f"a tensor as large as the table: {tuple(x.shape)}"
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            outputs, after = memory(torch.randn(1, 10, 5), state)
        outputs.sum().backward()
        kept.append(sum(sizes.values()))
        assert nbytes(after.links) == slots * 4 * 24 + 4 * 12
    assert kept[0] == kept[1]


def test_an_empty_memory_and_its_links_take_no_room():
    state = SDNC(5, slots=1_000_000).initial_state(2)
    assert state.links.later_slots.shape == (2, 1_000_000, 8)
    storages = {}
    map_tensors(lambda x: storages.setdefault(x.data_ptr(), x.untyped_storage().nbytes()) and x, state)
    assert sum(storages.values()) < 9_000_000  # the order of access, for which every slot has a number


def test_the_error_says_which_argument_is_wrong():
    with pytest.raises(ValueError, match="links must be at least 1, not 0"):
        SDNC(3, links=0)
