"""What one does to a state."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mnemos import tree


class Inner(NamedTuple):
    counts: Tensor


class State(NamedTuple):
    matrix: Tensor
    parts: list
    inner: Inner


def state(rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return State(
        torch.randn(rows, 2, 2, generator=generator),
        [torch.randn(rows, generator=generator, dtype=torch.float64), (torch.arange(rows) > 0,)],
        Inner(torch.arange(rows) + 10 * seed),
    )


def same(left, right):
    pairs = list(zip(tree.tensors(left), tree.tensors(right), strict=True))
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_the_tensors_of_a_state_come_in_the_order_of_its_fields():
    held = state()
    expected = [held.matrix, held.parts[0], held.parts[1][0], held.inner.counts]
    assert all(a is b for a, b in zip(tree.tensors(held), expected, strict=True))
    assert tree.first_tensor(held) is held.matrix


def test_the_kind_of_every_part_is_kept():
    doubled = tree.map_tensors(lambda leaf: leaf + leaf, state())
    assert isinstance(doubled, State)
    assert isinstance(doubled.parts, list)
    assert isinstance(doubled.parts[1], tuple)
    assert isinstance(doubled.inner, Inner)


def test_detach_cuts_the_history_and_nothing_else():
    weight = torch.ones(2, 2, requires_grad=True)
    held = state()._replace(matrix=state().matrix * weight)
    cut = tree.detach(held)
    assert same(cut, held)
    assert held.matrix.requires_grad
    assert not any(leaf.requires_grad for leaf in tree.tensors(cut))


def test_rows_are_selected_in_the_order_asked_for_with_repeats():
    picked = tree.select_rows(state(), torch.tensor([2, 0, 0]))
    assert picked.inner.counts.tolist() == [2, 0, 0]
    assert torch.equal(picked.matrix, state().matrix[[2, 0, 0]])
    assert same(tree.select_rows(state(), torch.arange(3)), state())


def test_repeated_rows_lie_side_by_side():
    assert tree.repeat_rows(state(), 2).inner.counts.tolist() == [0, 0, 1, 1, 2, 2]


def test_concatenating_undoes_selecting():
    parts = [tree.select_rows(state(), torch.tensor([row])) for row in range(3)]
    assert same(tree.concatenate_rows(parts), state())


def test_where_takes_whole_rows_and_leaks_no_nan_into_gradients():
    old = state()._replace(matrix=torch.full((3, 2, 2), torch.nan))
    new = state(seed=1)
    new = new._replace(matrix=new.matrix.requires_grad_())
    chosen = tree.where_rows(torch.tensor([True, True, True]), new, old)
    assert same(tree.detach(chosen), tree.detach(new))
    gradient = torch.autograd.grad(chosen.matrix.sum(), new.matrix)[0]
    assert torch.equal(gradient, torch.ones(3, 2, 2))
    mixed = tree.where_rows(torch.tensor([False, True, False]), state(seed=1), state())
    assert mixed.inner.counts.tolist() == [0, 11, 2]


@pytest.mark.parametrize("rows", [1, 3])
def test_reset_starts_the_marked_rows_afresh(rows):
    initial = tree.map_tensors(torch.zeros_like, state(rows))
    after = tree.reset_rows(state(), torch.tensor([False, True, False]), initial)
    assert after.inner.counts.tolist() == [0, 0, 2]
    assert torch.equal(after.matrix[[0, 2]], state().matrix[[0, 2]])
    assert not after.matrix[1].any()


def test_the_given_state_is_left_as_it_was():
    held = state()
    rows = torch.tensor([True, False, True])
    tree.reset_rows(held, rows, tree.map_tensors(torch.zeros_like, held))
    tree.where_rows(rows, state(seed=1), held)
    tree.repeat_rows(held, 2)
    assert same(held, state())


def test_nbytes_counts_every_tensor():
    assert tree.nbytes(state()) == 3 * (4 * 4 + 8 + 1 + 8)
    assert tree.nbytes(()) == 0


def test_to_moves_floats_to_another_precision_and_leaves_counts_alone():
    moved = tree.to(state(), dtype=torch.bfloat16)
    assert [leaf.dtype for leaf in tree.tensors(moved)] == [
        torch.bfloat16,
        torch.bfloat16,
        torch.bool,
        torch.int64,
    ]


def test_a_mask_is_not_taken_for_positions_nor_positions_for_a_mask():
    rows = torch.tensor([True, False, True])
    with pytest.raises(Exception, match="index"):
        tree.select_rows(state(), rows)
    with pytest.raises(Exception, match="rows"):
        tree.reset_rows(state(), rows.long(), state())


def test_concatenating_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one state"):
        tree.concatenate_rows([])
