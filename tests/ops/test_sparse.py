"""Weighted sums of rows, whose gradient is as small as what was read."""

import pytest
import torch
from torch import Tensor

from mnemos.ops.sparse import weighted_rows, weighted_rows_naive


def problem(
    slots: int, width: int, *shape: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(slots)
    table = torch.randn(slots, width, generator=generator, dtype=dtype).requires_grad_()
    weights = torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
    return table, torch.randint(slots, shape, generator=generator), weights


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 4), (2, 3, 7), (700, 9), (0, 4), (2, 0, 3)])
@pytest.mark.parametrize("width", [1, 33])
def test_it_is_the_sum_and_so_are_its_gradients(shape: tuple[int, ...], width: int) -> None:
    table, slots, weights = problem(11, width, *shape)
    ours, naive = weighted_rows(table, slots, weights), weighted_rows_naive(table, slots, weights)
    assert ours.shape == (*shape[:-1], width)
    torch.testing.assert_close(ours, naive)
    probe = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    to_table, to_weights = torch.autograd.grad(ours, (table, weights), probe)
    expected = torch.autograd.grad(naive, (table, weights), probe)
    torch.testing.assert_close((to_table.to_dense(), to_weights), expected)


def test_the_gradient_holds_the_rows_that_were_read_and_no_other() -> None:
    table, slots, weights = problem(10_000, 3, 6, 4)
    to_table, to_weights = torch.autograd.grad(weighted_rows(table, slots, weights).sum(), (table, weights))
    assert to_table.is_coalesced()
    assert torch.equal(to_table.indices()[0], slots.unique())
    assert to_weights.layout == torch.strided


def test_a_frozen_table_costs_no_gradient() -> None:
    table, slots, weights = problem(20, 3, 6, 4)
    (to_weights,) = torch.autograd.grad(weighted_rows(table.detach(), slots, weights).sum(), weights)
    torch.testing.assert_close(to_weights, table.detach()[slots].sum(-1))
    (to_table,) = torch.autograd.grad(weighted_rows(table, slots, weights.detach()).sum(), table)
    assert to_table.is_sparse


def test_a_table_that_two_read_gets_both_gradients() -> None:
    table, slots, weights = problem(20, 3, 6, 4)
    other = torch.arange(8).view(2, 4)
    (weighted_rows(table, slots, weights).sum() + weighted_rows(table, other, weights[:2]).sum()).backward()
    ours, table.grad = table.grad.to_dense(), None
    naive = weighted_rows_naive(table, slots, weights).sum()
    (naive + weighted_rows_naive(table, other, weights[:2]).sum()).backward()
    torch.testing.assert_close(ours, table.grad)


def test_weights_may_be_of_another_precision() -> None:
    table, slots, weights = problem(20, 3, 6, 4, dtype=torch.float32)
    half = weights.detach().bfloat16().requires_grad_()
    outputs = weighted_rows(table, slots, half)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, weighted_rows_naive(table, slots, half.float()))
    outputs.sum().backward()
    assert half.grad.dtype == torch.bfloat16


def test_a_slot_that_is_not_there_is_an_error() -> None:
    table, slots, weights = problem(20, 3, 6, 4)
    with pytest.raises(RuntimeError):
        weighted_rows(table, slots + 20, weights)


@pytest.mark.compiles
def test_it_compiles_with_its_sparse_gradient() -> None:
    table, slots, weights = problem(20, 3, 6, 4)
    compiled = torch.compile(weighted_rows, fullgraph=True, backend="aot_eager")
    gradients = [
        torch.autograd.grad(f(table, slots, weights).square().sum(), (table, weights))
        for f in (compiled, weighted_rows)
    ]
    assert gradients[0][0].is_sparse
    torch.testing.assert_close(gradients[0][0].to_dense(), gradients[1][0].to_dense())
    torch.testing.assert_close(gradients[0][1], gradients[1][1])
