"""Names that mean something from their first use on, and are used again much later in the document."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

FILLER = 32  # words that mean nothing


class Definitions(NamedTuple):
    """A piece of every document."""

    tokens: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]  # at a name that was used before, its value; -1 elsewhere
    begins: bool  # whether a document begins with this piece


def vocabulary(names: int, values: int) -> int:
    """Tokens in all: words that mean nothing, names, values."""
    return FILLER + names + values


def documents(
    rows: int, length: int, uses: Sequence[int], names: int, values: int, generator: torch.Generator
) -> Iterator[Definitions]:
    """Documents without end, piece by piece; every document gives the names values of its own.

    A use of a name is the name and, behind it, its value, at random among words that mean nothing. All names
    are used before one is used again, so the first round of uses defines them. Later uses can be foretold by
    who remembers; no one else beats chance, 1 / values.

    Args:
        rows: documents side by side.
        length: of a piece.
        uses: of all names together, in each piece of a document: multiples of `names`, at most length / 2.
    """
    if any(count % names or 2 * count > length for count in uses):
        raise ValueError(f"uses must be multiples of {names} of at most {length // 2}, not {tuple(uses)}")
    while True:
        meaning = torch.randint(values, (rows, names), generator=generator)
        known = False
        for piece, count in enumerate(uses):
            tokens = torch.randint(FILLER, (rows, length), generator=generator)
            targets = torch.full_like(tokens, -1)
            if count:
                rounds = torch.rand(rows, count // names, names, generator=generator).argsort(2)
                used = rounds.flatten(1)
                places = torch.rand(rows, length // 2, generator=generator).argsort(1)[:, :count]
                places = 2 * places.sort(1).values
                value = meaning.gather(1, used)
                tokens.scatter_(1, places, FILLER + used)
                tokens.scatter_(1, places + 1, FILLER + names + value)
                first = 0 if known else names
                targets.scatter_(1, places[:, first:], value[:, first:])
                known = True
            yield Definitions(tokens, targets, begins=piece == 0)
