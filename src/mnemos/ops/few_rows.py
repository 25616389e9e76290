"""A batch in pieces that a processor's cache holds from one operation to the next."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

HELD = 2**16  # numbers of one tensor, of which several are in use at once


def in_pieces(largest: Tensor) -> bool:
    """Whether a chain of operations would otherwise go through main memory with each."""
    return largest.numel() > HELD and largest.is_cpu and largest.shape[0] > 1


def few_rows(largest: Tensor, tensors: Sequence[Tensor]) -> Iterable[tuple[Tensor, ...]]:
    """The tensors, batch first, a few rows at a time where `largest` is to be gone through `in_pieces`.

    A compiler is left to arrange that itself.
    """
    if torch.compiler.is_compiling() or not in_pieces(largest):
        return [tuple(tensors)]
    rows = max(1, HELD * largest.shape[0] // largest.numel())
    return zip(*(x.split(rows) for x in tensors), strict=True)
