"""An optimiser for tables of which a step reads a few rows: only those are moved."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn

from mnemos.stores.row_optimizer import RowOptimizer


@final
class SparseOptimizer(torch.optim.Optimizer):
    """Moves the rows that have a gradient, each as if it were a parameter of its own.

        optimizer = SparseOptimizer([memory.values.rows], adam, lr=1e-2)

    The rules are those of `mnemos.stores.row_optimizer`, which count the steps of each row: a row that is
    read for the first time takes a first step. torch.optim.SparseAdam counts the steps of the table, so that
    with its default betas the first step of a row that is first read late is 3.2 times too long. There is
    no weight decay, which would reach rows that were not read. Where every row has a gradient at every step,
    `adam` is torch.optim.Adam.

    Args:
        tables: parameters of at least one axis; a row is an entry of the first. Their gradients are sparse
            along it; a dense one moves every row. Moments have the table's dtype: half precision is refused.
        rule: from a learning rate to a rule of `mnemos.stores.row_optimizer`; `functools.partial` sets more.
        lr: the learning rate, which a scheduler of torch may change.
    """

    def __init__(
        self, tables: Iterable[nn.Parameter], rule: Callable[[float], RowOptimizer], lr: float
    ) -> None:
        super().__init__(tables, {"lr": lr})
        self.rule = rule
        for group in self.param_groups:
            for table in group["params"]:
                if table.dtype not in (torch.float32, torch.float64) or not table.dim():
                    raise ValueError(
                        "tables must be float32 or float64 of at least one axis, "
                        f"not {table.dtype} of shape {tuple(table.shape)}"
                    )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rule": self.rule}  # torch's own forgets what it does not know

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves every row that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rule = self.rule(group["lr"])
            for table in group["params"]:
                if table.grad is not None:
                    self._move(table, rule)
        return loss

    def _move(self, table: Tensor, rule: RowOptimizer) -> None:
        assert table.grad is not None
        state = self.state[table]
        if not state:
            state["steps"] = table.new_zeros(len(table))
            state["moments"] = [torch.zeros_like(table) for _ in range(rule.moments)]
        wholes = (table, state["steps"], *state["moments"])
        rows, gradients = _rows(table.grad)
        # In pieces that stay in a processor's cache, which halves the time of large steps.
        length = max(1, _PIECE // max(1, gradients[:1].numel()) if table.is_cpu else len(rows))
        for some, gradient in zip(rows.split(length), gradients.split(length), strict=True):
            row, count, *past = (whole.index_select(0, some) for whole in wholes)
            count += 1
            shaped = count.view(-1, *[1] * (table.dim() - 1))
            moved, new = rule.step(row, gradient, tuple(past), shaped)
            for whole, part in zip(wholes, (moved, count, *new), strict=True):
                whole.index_copy_(0, some, part)


_PIECE = 2**16  # numbers of a table that are moved together


def _rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows have a gradient, and theirs."""
    if not gradient.is_sparse:
        return torch.arange(len(gradient), device=gradient.device), gradient
    if gradient.sparse_dim() != 1:
        raise ValueError(f"a gradient must be sparse along its first axis alone, not {gradient.sparse_dim()}")
    # Autograd forgets that a gradient is coalesced when it becomes `.grad`, and to do it again costs as much
    # as the backward pass of a large table. Rows in ascending order are as good.
    rows = gradient._indices()[0]
    if bool((rows[1:] <= rows[:-1]).any()):
        gradient = gradient.coalesce()
        rows = gradient._indices()[0]
    return rows, gradient._values()
