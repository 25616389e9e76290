"""What one does to any memory's state: a tensor, or nested tuples, lists and dicts of tensors.

Every tensor of a state has the batch as its first axis, so that one row of the batch is one row of
every tensor. The functions here return a new state and leave the given one as it was.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils import _pytree as pytree  # no public torch module maps over nested tuples

State = TypeVar("State")


def tensors(state: Any) -> list[Tensor]:
    """The tensors of a state, in a fixed order."""
    return [leaf for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor)]


def first_tensor(state: Any) -> Tensor:
    """The first of `tensors(state)`, without a walk through all of them."""
    return next(leaf for leaf in pytree.tree_iter(state) if isinstance(leaf, Tensor))


def map_tensors(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """Applies `function` to corresponding tensors of one or several states of the same structure."""
    return pytree.tree_map(function, state, *others)


def detach(state: State) -> State:
    """The same memory without its history: what truncated backpropagation needs between segments."""
    return map_tensors(Tensor.detach, state)


def select_rows(state: State, index: Int[Tensor, " rows"]) -> State:
    """The rows `index` of the batch, in that order, repeats allowed.

    This is also how a beam search reorders: `select_rows(state, beam_index)`.

    Args:
        index: positions in the batch, int64. A mask of booleans is refused, since torch would read
            it as something else: use `mask.nonzero().squeeze(1)`.
    """
    if index.dtype not in (torch.int64, torch.int32) or index.dim() != 1:
        raise TypeError(
            "index must be a one-dimensional integer tensor of rows, "
            f"not {index.dtype} of shape {tuple(index.shape)}"
        )
    return map_tensors(lambda leaf: leaf.index_select(0, index.to(leaf.device)), state)


def repeat_rows(state: State, times: int) -> State:
    """Every row `times` times, copies side by side: rows a, b become a, a, b, b."""
    return map_tensors(lambda leaf: leaf.repeat_interleave(times, dim=0), state)


def concatenate_rows(states: list[State]) -> State:
    """One batch out of several: the rows of the first state, then those of the second, and so on."""
    if not states:
        raise ValueError("states must hold at least one state")
    return map_tensors(lambda *leaves: torch.cat(leaves, dim=0), *states)


def where_rows(rows: Bool[Tensor, " batch"], if_true: State, if_false: State) -> State:
    """Row by row, `if_true` where `rows` is true and `if_false` elsewhere.

    A true select: what is not chosen cannot leak a NaN into values or gradients' values.
    """
    return map_tensors(
        lambda left, right: torch.where(rows.view(-1, *[1] * (left.dim() - 1)), left, right),
        if_true,
        if_false,
    )


def reset_rows(state: State, rows: Bool[Tensor, " batch"], initial: State) -> State:
    """Starts some rows afresh, for instance those whose episode has ended.

    Args:
        rows: true where a row starts afresh. Positions are refused: a mask read as positions (or the
            reverse) resets the wrong rows without a word.
        initial: `memory.initial_state(batch_size)` of the same batch size, or of size one, which then
            serves every row.
    """
    if rows.dtype != torch.bool or rows.dim() != 1:
        raise TypeError(
            "rows must be a boolean tensor with one entry per row, "
            f"not {rows.dtype} of shape {tuple(rows.shape)}"
        )
    return where_rows(rows, map_tensors(lambda new, old: new.expand_as(old), initial, state), state)


def nbytes(state: Any) -> int:
    """Bytes that the state's tensors take."""
    return sum(leaf.numel() * leaf.element_size() for leaf in tensors(state))


def to(state: State, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
    """The state on another device, and its floating-point tensors in another dtype."""

    def move(leaf: Tensor) -> Tensor:
        return leaf.to(device=device, dtype=dtype if leaf.is_floating_point() else None)

    return map_tensors(move, state)
