"""Which slots a batch may change, and an edit that can be made, kept and taken back."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mnemos.consolidation import (
    Background,
    Edit,
    SparseFinetuning,
    background,
    load_edit,
    save_edit,
    specificity,
)
from mnemos.ops.sparse import weighted_rows
from mnemos.sparse_optimizer import SparseOptimizer
from mnemos.stores.row_optimizer import adam


def table(slots: int = 30, width: int = 4) -> nn.Parameter:
    return nn.Parameter(torch.randn(slots, width, generator=torch.Generator().manual_seed(0)))


def known(slots: int = 30) -> Background:
    """Slots 0 to 9 are read by every batch, 10 to 19 by one of four, the others by none."""
    always = torch.arange(10)
    return background([torch.cat([always, torch.arange(10, 20)]), always, always, always.repeat(3)], slots)


def learn(rows: nn.Parameter, tuning: SparseFinetuning, steps: int = 3) -> list[Tensor]:
    """Some steps on random readings; the slots that each could change."""
    generator = torch.Generator().manual_seed(1)
    optimizer = SparseOptimizer([rows], adam, lr=0.1)
    chosen = []
    for _ in range(steps):
        slots = torch.randint(len(rows), (5, 6), generator=generator)
        optimizer.zero_grad()
        weighted_rows(rows, slots, torch.rand(5, 6, generator=generator)).square().sum().backward()
        chosen.append(tuning.restrict(slots))
        optimizer.step()
    return chosen


def test_the_background_counts_batches_and_not_readings() -> None:
    assert known().batches == 4
    assert known().read_in.tolist() == [4] * 10 + [1] * 10 + [0] * 10


def test_specificity_is_tf_idf() -> None:
    scores = specificity(torch.tensor([[0, 0], [12, 25], [25, 0]]), known())
    expected = torch.zeros(30)
    expected[12], expected[25] = 1 / 6 * math.log(5 / 2), 2 / 6 * math.log(5 / 1)
    torch.testing.assert_close(scores, expected)  # slot 0 is read by all: not specific at all
    assert not specificity(torch.zeros(2, 0, dtype=torch.int64), known()).any()


def test_the_most_specific_slots_are_chosen_and_no_slot_that_everything_reads() -> None:
    tuning = SparseFinetuning(table(), known(), slots=2)
    assert tuning.restrict(torch.tensor([0, 0, 0, 12, 25, 25, 21, 21])).tolist() == [21, 25]
    assert tuning.restrict(torch.tensor([0, 0, 0, 12])).tolist() == [12]
    assert tuning.restrict(torch.tensor([0, 3])).tolist() == []


@pytest.mark.parametrize("sparse", [True, False])
def test_only_chosen_rows_keep_their_gradient(sparse: bool) -> None:
    rows = table()
    slots = torch.tensor([[0, 12, 25, 21]])
    weighted_rows(rows, slots, torch.ones(1, 4)).sum().backward()
    assert rows.grad is not None
    rows.grad = rows.grad if sparse else rows.grad.to_dense()
    chosen = SparseFinetuning(rows, known(), slots=2).restrict(slots)
    gradient = rows.grad.to_dense()
    assert gradient.any(1).nonzero().flatten().tolist() == chosen.tolist() == [21, 25]
    assert rows.grad.is_sparse is sparse


def test_everything_may_change_where_there_is_room_for_everything() -> None:
    nothing = Background(1, torch.zeros(30, dtype=torch.int64))
    free, held = table(), table()
    tuning = SparseFinetuning(held, nothing, slots=30)
    learn(held, tuning)
    learn(free, SparseFinetuning(free, Background(1, torch.zeros(30, dtype=torch.int64)), slots=10**6))
    assert torch.equal(free, held)


def test_an_edit_is_what_changed_and_goes_back_bit_for_bit(tmp_path: Path) -> None:
    rows = table()
    with torch.no_grad():
        rows[:, 0], rows[::2, 1] = -0.0, torch.nan
    first = rows.detach().clone()
    tuning = SparseFinetuning(rows, known(), slots=3)
    assert len(tuning.edit().rows) == 0
    chosen = torch.cat(learn(rows, tuning)).unique()
    learned = rows.detach().clone()
    assert set(tuning.edit().rows.tolist()) <= set(chosen.tolist())
    save_edit(tmp_path / "facts.edit", tuning.edit())
    edit = load_edit(tmp_path / "facts.edit")
    edit.revert(rows)
    assert bits(rows) == bits(first)
    edit.apply(rows)
    assert bits(rows) == bits(learned)
    assert [path.name for path in tmp_path.iterdir()] == ["facts.edit"]


def bits(rows: Tensor) -> bytes:
    return rows.detach().numpy().tobytes()


def test_edits_one_after_the_other_go_back_in_reverse() -> None:
    rows = table()
    first = rows.detach().clone()
    edits = []
    for _ in range(2):
        tuning = SparseFinetuning(rows, known(), slots=5)
        learn(rows, tuning)
        edits.append(tuning.edit())
    with pytest.raises(ValueError, match=r"rows of the table are not as they were after this edit"):
        edits[0].revert(rows)
    edits[1].revert(rows)
    edits[0].revert(rows)
    assert torch.equal(rows, first)


def test_an_edit_of_another_table_is_refused() -> None:
    rows = table()
    edit = Edit(torch.tensor([2]), rows.detach()[[2]], torch.zeros(1, 4))
    for other in (table(2), table(30, 5), rows.detach().double()):
        with pytest.raises(ValueError, match=r"the edit is of torch.float32 rows of shape \(4,\), the table"):
            edit.apply(other)
    changed = rows.detach().clone()
    changed[2] += 1
    before = changed.clone()
    with pytest.raises(ValueError, match="1 of 1 rows of the table are not as they were before this edit"):
        edit.apply(changed)
    assert torch.equal(changed, before)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    rows = table()
    path = tmp_path / "facts.edit"
    save_edit(path, Edit(torch.tensor([2]), rows.detach()[[2]], torch.zeros(1, 4)))
    whole = path.read_bytes()
    for place in (*range(0, len(whole), 37), len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not an edit, or is damaged"):
            load_edit(path)
    for length in (0, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not an edit, or is damaged"):
            load_edit(path)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="known is of 20 slots, the table has 30"):
        SparseFinetuning(table(), known(20), slots=3)
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        SparseFinetuning(table(), known(), slots=0)
