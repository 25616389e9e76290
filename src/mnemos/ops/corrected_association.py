"""An associative memory in one matrix that answers by a mean, and corrects what it would answer.

Rodkin et al. 2024, "Associative Recurrent Memory Transformer", section 2:

    answer to q:    A φ(q) / (z · φ(q))
    writing (k, v): A + β (v - its answer to k) ⊗ φ(k),    z + γ φ(k),    γ = 1 - z · φ(k) / |φ(k)|²

What is written at once is corrected by what was known before all of it. Without γ a key that comes again
would count twice in z, and its value be answered by half. For one pair at a time and keys that are
orthonormal this is the delta rule: z · φ(k) is then 1 for every key that was written.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# What a query must match of all keys: below, its answer fades away. A mean over keys that it hardly matches
# says nothing, and its gradient is large and made of rounding errors.
LEAST_MATCH = 1e-2


class Association(NamedTuple):
    """A matrix, and the sum of the keys that it was told."""

    matrix: Float[Tensor, "batch width keys"]  # A
    total: Float[Tensor, "batch keys"]  # z


def recalled(
    known: Association, queries: Float[Tensor, "batch time keys"]
) -> Float[Tensor, "batch time width"]:
    """What the memory answers; zeros as long as it is empty.

    Args:
        queries: φ(q): features that are never below 0.
    """
    return queries @ known.matrix.mT / _matched(known, queries).clamp_min(LEAST_MATCH)


def corrected(
    known: Association,
    keys: Float[Tensor, "batch time keys"],
    values: Float[Tensor, "batch time width"],
    strength: Float[Tensor, "batch time 1"],
) -> Association:
    """The memory after pairs that are written at once.

    Args:
        keys: φ(k): features that are never below 0, of length one.
        strength: β, how far each answer moves.
    """
    change = strength * (values - recalled(known, keys))
    # Held between 0 and 1, as in the authors' code: keys that are nearly the same would take from z.
    new = (1 - _matched(known, keys)).clamp(0, 1)  # γ
    return Association(known.matrix + change.mT @ keys, known.total + (new * keys).sum(1))


def _matched(known: Association, queries: Tensor) -> Float[Tensor, "batch time 1"]:
    return torch.einsum("btk,bk->bt", queries, known.total).unsqueeze(2)
