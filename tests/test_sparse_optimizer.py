"""Only the rows that have a gradient move, each as if it were alone."""

import pickle
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mnemos.ops.sparse import weighted_rows
from mnemos.sparse_optimizer import SparseOptimizer
from mnemos.stores.row_optimizer import adagrad, adam, sgd

DENSE = {
    "sgd": (sgd, torch.optim.SGD),
    "adagrad": (adagrad, torch.optim.Adagrad),
    "adam": (adam, torch.optim.Adam),
}


def table(slots: int = 500, width: int = 3, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    generator = torch.Generator().manual_seed(0)
    return nn.Parameter(torch.randn(slots, width, generator=generator, dtype=dtype))


def gradient(rows: list[int], like: Tensor, seed: int) -> Tensor:
    values = torch.randn(len(rows), like.shape[1], generator=torch.Generator().manual_seed(seed)).to(like)
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, like.shape, check_invariants=True)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("sparse", [True, False])
def test_where_every_row_has_a_gradient_it_is_torchs_own(name: str, sparse: bool) -> None:
    rule, dense = DENSE[name]
    ours, theirs = table(), table()
    one, other = SparseOptimizer([ours], rule, lr=0.1), dense([theirs], lr=0.1)
    for step in range(5):
        moves = gradient(list(range(500)), ours, step)
        ours.grad, theirs.grad = moves if sparse else moves.to_dense(), moves.to_dense()
        one.step()
        other.step()
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", DENSE)
def test_a_row_moves_as_if_it_were_alone(name: str) -> None:
    rule, dense = DENSE[name]
    ours, before = table(), table()
    optimizer = SparseOptimizer([ours], rule, lr=0.1)
    plan = [[3, 7], [7, 7, 2], [2], [3, 499]]  # a row may stand in a gradient more than once
    for step, rows in enumerate(plan):
        ours.grad = gradient(rows, ours, step)
        optimizer.step()
    for row in (2, 3, 7, 499):
        alone = nn.Parameter(before[row].detach().clone())
        theirs = dense([alone], lr=0.1)
        for step, rows in enumerate(plan):
            if row in rows:
                alone.grad = gradient(rows, ours, step).to_dense()[row]
                theirs.step()
        torch.testing.assert_close(ours[row], alone, atol=1e-12, rtol=1e-9)
    untouched = torch.ones(500, dtype=torch.bool)
    untouched[[2, 3, 7, 499]] = False
    assert torch.equal(ours[untouched], before[untouched])


def test_a_row_read_late_takes_a_first_step_where_torchs_takes_a_longer_one() -> None:
    ours, theirs = table(), table()
    one, other = SparseOptimizer([ours], adam, lr=0.1), torch.optim.SparseAdam([theirs], lr=0.1)
    for step in range(300):
        for some in (ours, theirs):
            some.grad = gradient([5] if step < 299 else [9], some, step)
        one.step()
        other.step()
    lengths = [(some[9] - table()[9]).abs().mean().item() for some in (ours, theirs)]
    assert lengths[0] == pytest.approx(0.1, rel=1e-5)
    assert lengths[1] > 0.15  # 0.32 once 1 - 0.999 ** steps is near 1


def test_it_goes_on_from_its_saved_state_and_follows_a_schedule() -> None:
    def run(interrupted: bool) -> Tensor:
        rows = table(dtype=torch.float32)
        optimizer = SparseOptimizer([rows], partial(adam, betas=(0.8, 0.9)), lr=0.1)
        for step in range(6):
            if interrupted and step == 3:
                saved = optimizer.state_dict()
                optimizer = SparseOptimizer([rows], partial(adam, betas=(0.8, 0.9)), lr=1.0)
                optimizer.load_state_dict(saved)
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            rows.grad = gradient([step, 2, 4], rows, step)
            optimizer.step()
        return rows.detach()

    assert torch.equal(run(True), run(False))


def test_a_copy_moves_like_the_original() -> None:
    rows = table()
    optimizer = SparseOptimizer([rows], adam, lr=0.1)
    rows.grad = gradient([3, 7], rows, 0)
    optimizer.step()
    twin = pickle.loads(pickle.dumps(optimizer))
    (other,) = twin.param_groups[0]["params"]
    for some in (rows, other):
        some.grad = gradient([7, 9], rows, 1)
    optimizer.step()
    twin.step()
    assert torch.equal(rows, other)


def test_it_follows_a_gradient_through_weighted_rows() -> None:
    rows = table(50, 2, torch.float32)
    slots = torch.tensor([[4, 8], [8, 4]])
    weights, targets = torch.tensor([[0.9, 0.1], [0.7, 0.3]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    optimizer = SparseOptimizer([rows], adam, lr=0.1)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (weighted_rows(rows, slots, weights) - targets).square().sum()
        value.backward()
        return value

    first = loss().item()
    for _ in range(200):
        last = optimizer.step(loss)
    assert last < 1e-3 * first


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="tables must be float32 or float64 of at least one axis"):
        SparseOptimizer([table(dtype=torch.bfloat16)], adam, lr=0.1)


def test_a_gradient_that_is_sparse_within_rows_is_refused() -> None:
    rows = table()
    optimizer = SparseOptimizer([rows], sgd, lr=0.1)
    rows.grad = rows.detach().to_sparse()
    with pytest.raises(ValueError, match="sparse along its first axis alone, not 2"):
        optimizer.step()
