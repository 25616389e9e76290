"""Whole documents in streams side by side, read piece by piece: what a carried memory is for."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NOT_A_TARGET = -100  # what torch's cross-entropy leaves out


class Piece(NamedTuple):
    """The next steps of every stream."""

    tokens: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]  # the tokens that follow; NOT_A_TARGET where a document ends
    reset: Bool[Tensor, "rows time"]  # a document begins before the step


def pieces(
    texts: Sequence[Int[Tensor, "_tokens"]],
    rows: int,
    length: int,
    start: int,
    generator: torch.Generator,
    *,
    longest: int | None = None,
) -> Iterator[Piece]:
    """Texts at random, one after the other in every row, for ever, in pieces that follow each other.

    Every row begins somewhere within a text; each later text begins with the mark of a start.

    Args:
        texts: of at least two tokens each.
        rows: streams side by side.
        length: steps of a piece.
        start: the token that marks the start of a text.
        longest: the most steps of a text that are read on end, at least 1. Of longer texts so many are read,
            from anywhere on and then without the mark. None reads them all.

    Raises:
        ValueError: no text, or one that is too short.
    """
    if not texts or min(map(len, texts)) < 2:
        raise ValueError("texts must be at least one, of at least two tokens each")
    if longest is not None and longest < 1:
        raise ValueError(f"longest must be at least 1, not {longest}")
    streams = [_stream(texts, length, start, generator, longest) for _ in range(rows)]
    while True:
        tokens, fresh = (torch.stack(parts) for parts in zip(*map(next, streams), strict=True))
        targets = tokens[:, 1:].masked_fill(fresh[:, 1:], NOT_A_TARGET)
        yield Piece(tokens[:, :-1], targets, fresh[:, :-1])


def _stream(
    texts: Sequence[Tensor], length: int, start: int, generator: torch.Generator, longest: int | None
) -> Iterator[tuple[Int[Tensor, "time"], Bool[Tensor, "time"]]]:
    """Tokens of one row, a piece and the one that follows it, and where texts begin."""

    def drawn(most: int) -> int:
        return int(torch.randint(most, (), generator=generator))

    def stretch() -> Tensor:
        text = texts[drawn(len(texts))]
        if longest is None or len(text) <= longest:
            return torch.cat([text.new_tensor([start]), text])
        begin = drawn(len(text) - longest + 1)
        return text[begin : begin + longest]

    first = stretch()
    tokens = first[1 + drawn(max(1, len(first) - 2)) :]  # so that rows do not all begin anew at once
    fresh = _first_of(tokens)
    while True:
        while len(tokens) <= length:
            more = stretch()
            tokens, fresh = torch.cat([tokens, more]), torch.cat([fresh, _first_of(more)])
        yield tokens[: length + 1], fresh[: length + 1]
        tokens, fresh = tokens[length:], fresh[length:]


def _first_of(tokens: Tensor) -> Bool[Tensor, "time"]:
    return torch.arange(len(tokens)) == 0
