"""`MemorizingAttention` with an archive: what is committed is remembered as if the state still held it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import mnemos
from mnemos.memories.archive import Archive
from mnemos.memories.base import Memory
from mnemos.memories.combination import HeadGate, JointSoftmax
from mnemos.memories.memorizing import MemorizingAttention
from mnemos.ops.delta_rule import unit
from mnemos.stores.base import Store
from mnemos.testing import number_laws, sequence_laws, state_laws

WINDOW, SLOTS = 3, 5
LAWS = [
    *(sequence_laws.mask, sequence_laws.reset, sequence_laws.rows, sequence_laws.twin),
    *(number_laws.finite, number_laws.learns, state_laws.snapshot, state_laws.pure),
]


def small(archive: Archive | None = None, joint: bool = False, **sizes: int | None) -> MemorizingAttention:
    torch.manual_seed(0)
    given = {"window": WINDOW, "slots": SLOTS, "top_k": 2, "heads": 2} | sizes
    combination = JointSoftmax() if joint else HeadGate(given["heads"])
    memory = MemorizingAttention(6, 4, **given, combination=combination, archive=archive)
    with torch.no_grad():  # away from their first values
        memory.distance_bias.normal_()
        memory.sharpness.normal_()
        for parameter in memory.combination.parameters():
            parameter.normal_()
    return memory


@pytest.fixture
def store() -> Iterator[Store]:
    with mnemos.open(":memory:") as store:
        yield store


def told(memory: MemorizingAttention, inputs: Tensor, size: int = SLOTS, **facts: Any) -> list[Tensor]:
    """The outputs of a document that is committed every `size` steps and at its end."""
    state, outputs = None, []
    for piece in inputs.split(size, dim=1):
        read, state = memory(piece, state)
        outputs.append(read)
        state = memory.commit(state, **facts)
    memory.commit(state, ended=torch.ones(len(inputs), dtype=torch.bool), **facts)
    return outputs


@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"top_k": None}, {"top_k": 7}, {"window": 1, "slots": 4, "top_k": 3}])
@pytest.mark.parametrize("joint", [False, True])
def test_what_is_committed_is_read_as_if_the_state_still_held_it(
    store: Store, joint: bool, sizes: dict[str, int | None], naive: bool
) -> None:
    memory = small(Archive(store), joint, **sizes)
    larger = small(joint=joint, **sizes | {"slots": 1000})
    memory.naive = naive
    inputs, mask = torch.randn(1, 60, 6), torch.rand(1, 60) < 0.7
    expected = larger(inputs, mask=mask)[0]
    start, state = 0, None
    for length in (4, 1, 4, 3, 4, 0, 2, 4, 1, 1, 4, 4, 4, 4, 4, 4, 4, 4, 4):  # most of them in mid-window
        some = slice(start, start + length)
        outputs, state = memory(inputs[:, some], state, mask=mask[:, some])
        torch.testing.assert_close(outputs, expected[:, some], atol=1e-5, rtol=1e-4)
        state, start = memory.commit(state), start + length
    assert store.count() == mask[:, :start].sum() - memory.window
    assert mnemos.tree.nbytes(state) == mnemos.tree.nbytes(memory.initial_state(1))


def test_rows_at_other_clocks_and_resets_are_the_plain_loop() -> None:
    """Rows share the archive, each with documents of its own, and padding anywhere."""
    torch.manual_seed(1)
    inputs = torch.randn(3, 48, 6)
    mask, reset = torch.rand(3, 48) < 0.6, torch.rand(3, 48) < 0.08
    answers = []
    for naive in (False, True):
        with mnemos.open(":memory:") as store:
            memory = small(Archive(store))
            memory.naive = naive
            state, outputs = None, []
            for piece in zip(*(x.split(7, dim=1) for x in (inputs, mask, reset)), strict=True):
                read, state = memory(piece[0], state, mask=piece[1], reset=piece[2])
                outputs.append(read)
                state = memory.commit(state, ended=torch.tensor([False, len(outputs) == 4, False]))
            records = store.get(store.ids())
            answers.append((torch.cat(outputs, dim=1), tuple(state), records.keys, records.metadata))
    assert len(answers[0][2]) > 30
    torch.testing.assert_close(answers[0][:3], answers[1][:3])
    assert answers[0][3] == answers[1][3]


@pytest.mark.parametrize("law", LAWS, ids=[law.__name__ for law in LAWS])
def test_laws_hold_beside_a_full_archive(store: Store, law: Callable[[Memory], None]) -> None:
    torch.manual_seed(3)  # not what the laws begin with: of two equal pairs either may be read
    memory = MemorizingAttention(4, 3, window=2, slots=5, top_k=2, heads=2, archive=Archive(store))
    told(memory, torch.randn(2, 9, 4))
    law(memory)
    assert store.count() == 18


@pytest.mark.parametrize("top_k", [2, 7, None])
def test_an_empty_archive_is_the_bounded_memory_to_the_bit(store: Store, top_k: int | None) -> None:
    memory, without = small(Archive(store), top_k=top_k), small(top_k=top_k)
    inputs = torch.randn(2, 30, 6)
    answers = []
    for each in (memory, without):
        outputs, state = each(inputs)
        outputs.square().sum().backward()
        answers.append([outputs, *state, *(parameter.grad for parameter in each.parameters())])
    for with_archive, bounded in zip(*answers, strict=True):
        assert torch.equal(with_archive, bounded)


@pytest.mark.parametrize("top_k", [2, None])
def test_queries_and_sharpness_learn_and_the_archive_has_no_gradient(store: Store, top_k: int | None) -> None:
    memory, larger = small(Archive(store), top_k=top_k), small(slots=100, top_k=top_k)
    told(memory, torch.randn(1, 8, 6))
    store.delete(where={})
    inputs, more = torch.randn(1, 20, 6), torch.randn(1, WINDOW + 1, 6)
    state, expected = None, mnemos.detach(larger(inputs)[1])
    for piece in inputs.split(5, dim=1):
        state = memory.commit(memory(piece, state)[1])
    gradients = []
    for each, before in ((memory, mnemos.detach(state)), (larger, expected)):
        each(more, before)[0].square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in each.named_parameters()})
    torch.testing.assert_close(*gradients)
    assert gradients[0]["query.weight"].ne(0).any()
    assert gradients[0]["sharpness"].ne(0).all()


def test_a_record_is_a_step_with_all_heads_and_says_which(store: Store) -> None:
    memory = small(Archive(store, "letters"))
    inputs = torch.randn(2, 6, 6)
    mask = torch.tensor([[True] * 6, [True, False, False, True, True, True]])
    _, state = memory(inputs, mask=mask)
    after = memory.commit(state, metadata=[{"row": "a"}, {"row": "b"}])
    assert state.committed.tolist() == [0, 0]  # the caller's is never changed
    assert after.committed.tolist() == [3, 1]
    assert after.clock.tolist() == [6, 4]
    records = store.get(store.ids({"namespace": "letters"}))
    expected = [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    assert records.metadata == [{"row": row, "step": step} for row, step in expected]
    steps = torch.cat([inputs[0, :3], inputs[1, :1]])
    torch.testing.assert_close(
        records.keys.unflatten(1, (2, 3)), unit(memory.key(steps).unflatten(1, (2, 3)))
    )
    torch.testing.assert_close(records.values, memory.value(steps).unflatten(1, (2, 3)))
    memory.commit(after)
    assert store.count() == 4  # nothing is written twice
    ended = memory.commit(after, metadata={"row": "c"}, ended=torch.tensor([False, True]))
    assert store.count({"row": "c"}) == 3  # the window of the row whose document is over
    assert ended.clock.tolist() == [6, 0]
    assert not ended.keys[1].any()


def test_what_was_let_go_before_a_commit_is_not_written(store: Store) -> None:
    memory = small(Archive(store))
    _, state = memory(torch.randn(1, 20, 6))
    memory.commit(state)
    steps = [facts["step"] for facts in store.get(store.ids()).metadata]
    assert steps == list(range(20 - WINDOW - SLOTS, 20 - WINDOW))


def test_erased_steps_are_read_by_no_head(store: Store) -> None:
    memory, bounded = small(Archive(store)), small()
    asked = torch.randn(1, 12, 6)
    told(memory, torch.randn(2, 12, 6), metadata=[{"title": "Emma"}, {"title": "Persuasion"}])
    both = memory(asked)[0]
    assert store.delete(where={"title": "Emma"}) == 12
    one = memory(asked)[0]
    assert store.delete(where={"title": "Persuasion"}) == 12
    neither = memory(asked)[0]
    assert not torch.allclose(both, one)
    assert not torch.allclose(one, neither)
    torch.testing.assert_close(neither, bounded(asked)[0])


def test_namespaces_do_not_answer_for_each_other(store: Store) -> None:
    told(small(Archive(store, "ada")), torch.randn(1, 12, 6))
    asked = torch.randn(1, 12, 6)
    assert torch.equal(small(Archive(store, "bob"))(asked)[0], small()(asked)[0])


@pytest.mark.compiles
def test_a_compiled_memory_reads_the_archive(store: Store) -> None:
    memory = small(Archive(store))
    told(memory, torch.randn(1, 12, 6))
    inputs = torch.randn(1, 9, 6)
    with torch.no_grad():
        expected, _ = memory(inputs)
        memory.archive.read = torch.compiler.disable(memory.archive.read)
        torch.testing.assert_close(torch.compile(memory, backend="eager")(inputs)[0], expected)
