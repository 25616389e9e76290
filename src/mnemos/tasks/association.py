"""Association: random keys, each bound to one of a codebook's values, and answers decoded by the codebook."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


class Pairs(NamedTuple):
    """Keys and the values that they are bound to; every vector has length one."""

    keys: Float[Tensor, "batch time keys"]
    values: Float[Tensor, "batch time width"]
    labels: Int[Tensor, "batch time"]  # which of the codebook's values


def codebook(batch_size: int, size: int, width: int, generator: torch.Generator) -> Tensor:
    """`size` random values to choose from, for every row: (batch, size, width)."""
    return functional.normalize(torch.randn(batch_size, size, width, generator=generator), dim=2)


def random_pairs(
    count: int, size: int, values: Float[Tensor, "batch size width"], generator: torch.Generator
) -> Pairs:
    """`count` random keys of width `size`, each bound once."""
    keys = functional.normalize(torch.randn(len(values), count, size, generator=generator), dim=2)
    return bound(keys, values, generator)


def rebound(
    rounds: int, pairs: Pairs, values: Float[Tensor, "batch size width"], generator: torch.Generator
) -> Iterator[Pairs]:
    """The same keys bound anew in every round, each round in an order of its own."""
    for _ in range(rounds):
        order = torch.rand(pairs.labels.shape, generator=generator).argsort(1)
        yield bound(_rows(pairs.keys, order), values, generator)


def bound(keys: Float[Tensor, "batch time keys"], values: Tensor, generator: torch.Generator) -> Pairs:
    """Binds every key to a value drawn at random."""
    labels = torch.randint(values.shape[1], keys.shape[:2], generator=generator)
    return Pairs(keys, _rows(values, labels), labels)


def right(
    answers: Float[Tensor, "batch time width"], values: Tensor, labels: Int[Tensor, "batch time"]
) -> Tensor:
    """Which answers have their greatest inner product in the codebook with the right value."""
    return (answers.to(values) @ values.mT).argmax(2) == labels


def _rows(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order.unsqueeze(2).expand(-1, -1, x.shape[2]))
