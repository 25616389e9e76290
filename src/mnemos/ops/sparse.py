"""Reading a few rows of a large table, with a gradient for those rows alone.

The gradient of the table is a sparse tensor (`torch.sparse_coo`, coalesced): its size is that of what was
read and not that of the table. It is computed without ever holding a row per reading, which is what
`torch.nn.functional.embedding_bag(sparse=True)` does before its gradient is coalesced.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def weighted_rows(
    table: Float[Tensor, "slots width"],
    slots: Int[Tensor, "*rows found"],
    weights: Float[Tensor, "*rows found"],
) -> Float[Tensor, "*rows width"]:
    """The sum of the table's rows at `slots`, each times its weight.

    Args:
        slots: int64 from 0 to the number of rows of the table; a slot may occur several times.
    """
    found = slots.shape[-1]
    sums = _weighted_rows(table, slots.reshape(-1, found), weights.reshape(-1, found).to(table.dtype))
    return sums.reshape(*slots.shape[:-1], table.shape[1])


def weighted_rows_naive(
    table: Float[Tensor, "slots width"],
    slots: Int[Tensor, "*rows found"],
    weights: Float[Tensor, "*rows found"],
) -> Float[Tensor, "*rows width"]:
    """The same, with a gradient as large as the table."""
    return (weights.to(table.dtype).unsqueeze(-1) * table[slots]).sum(-2)


# Operators of their own rather than an autograd.Function, which torch.compile would look into: it cannot
# trace a gradient whose number of rows is known only when it is there.
@torch.library.custom_op("mnemos::weighted_rows", mutates_args=())
def _weighted_rows(table: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    return functional.embedding_bag(slots, table, per_sample_weights=weights, mode="sum")


@_weighted_rows.register_fake
def _(table: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    return table.new_empty(slots.shape[0], table.shape[1])


@torch.library.custom_op("mnemos::weighted_rows_table_gradient", mutates_args=())
def _table_gradient(gradient: Tensor, slots: Tensor, weights: Tensor, size: int) -> Tensor:
    """Row s is the sum of weight times gradient over the readings of slot s: again a weighted sum of rows."""
    ordered, order = slots.flatten().sort(stable=True)
    rows, counts = torch.unique_consecutive(ordered, return_counts=True)
    sums = functional.embedding_bag(
        order.div(slots.shape[1], rounding_mode="floor"),
        gradient,
        counts.cumsum(0) - counts,
        per_sample_weights=weights.flatten()[order],
        mode="sum",
    )
    shape = (size, gradient.shape[1])
    return torch.sparse_coo_tensor(rows.unsqueeze(0), sums, shape, is_coalesced=True, check_invariants=False)


@_table_gradient.register_fake
def _(gradient: Tensor, slots: Tensor, weights: Tensor, size: int) -> Tensor:
    sums = gradient.new_empty(slots.numel(), gradient.shape[1])
    return torch.sparse_coo_tensor(
        slots.reshape(1, -1), sums, (size, gradient.shape[1]), check_invariants=False
    )


@torch.library.custom_op("mnemos::weighted_rows_weights_gradient", mutates_args=())
def _weights_gradient(gradient: Tensor, table: Tensor, slots: Tensor) -> Tensor:
    """The product of each row that was read with the gradient of its sum."""
    products = gradient.new_empty(slots.shape)
    # In pieces that stay in a processor's cache: all rows at once would be mapped and unmapped at every call.
    piece = _PIECE if table.is_cpu else 128 * _PIECE
    length = max(1, piece // (slots.shape[1] * table.shape[1]))
    pieces = zip(gradient.split(length), slots.split(length), products.split(length), strict=True)
    for some, read, into in pieces:
        rows = table.index_select(0, read.flatten()).unflatten(0, read.shape)  # faster than table[read]
        into.copy_(torch.bmm(rows, some.unsqueeze(-1)).squeeze(-1))
    return products


@_weights_gradient.register_fake
def _(gradient: Tensor, table: Tensor, slots: Tensor) -> Tensor:
    return gradient.new_empty(slots.shape)


_PIECE = 2**17  # numbers of the table that are read together


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    table, slots, weights = ctx.saved_tensors
    gradient = gradient.contiguous()
    to_table, _, to_weights = ctx.needs_input_grad
    return (
        _table_gradient(gradient, slots, weights, table.shape[0]) if to_table else None,
        None,
        _weights_gradient(gradient, table, slots) if to_weights else None,
    )


_weighted_rows.register_autograd(_gradients, setup_context=_save)
