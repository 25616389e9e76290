"""What the studies of language models share: novels as tokens, a decoder that reads them, and its cost.

A decoder reads streams of whole novels piece by piece, and its memory goes on from piece to piece without
its history. It is judged by bits per byte, at every distance from where its memory began.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

import mnemos
from mnemos.models.transformer import Transformer
from mnemos.progress import Advance
from mnemos.studies.fit import fit
from mnemos.tasks.reading import pieces
from mnemos.tasks.text import Document, count_bytes, encode, novels, train_tokenizer


class Novels(NamedTuple):
    """Texts as a decoder sees them; no novel is in both parts."""

    vocabulary_size: int  # the mark of a start, which is none of the tokenizer's, included
    lengths: Float[Tensor, "vocabulary"]  # bytes of every token
    train: list[Tensor]
    test: list[Tensor]


def read_novels(count: int, tokens: int) -> Novels:
    """The test's novels and the first so many of the training's, by a tokenizer that is trained on these."""
    split = novels()
    return as_tokens(split.train[:count], split.test, tokens)


def as_tokens(train: Sequence[Document], test: Sequence[Document], tokens: int) -> Novels:
    """The same for any documents."""
    tokenizer = train_tokenizer(train, tokens)
    size = tokenizer.get_vocab_size()
    lengths = torch.tensor([float(count_bytes(tokenizer, torch.tensor([token]))) for token in range(size)])
    read = [[encode(tokenizer, document.text).ids for document in part] for part in (train, test)]
    return Novels(size + 1, torch.cat([lengths, torch.zeros(1)]), *read)


def learn(
    network: Transformer,
    texts: Sequence[Int[Tensor, "_tokens"]],
    steps: int,
    generator: torch.Generator,
    advance: Advance,
    *,
    rows: int = 8,
    length: int = 128,
    learning_rate: float = 3e-3,
    carries: bool = True,
) -> None:
    """Trains on streams of texts, a piece per step.

    Args:
        length: steps of a piece.
        carries: whether a piece begins with what the one before left, without its history.
    """
    stream = pieces(texts, rows, length, network.start, generator)
    carried: Any = None

    def loss(step: int) -> Tensor:
        nonlocal carried
        piece = next(stream)
        logits, state = network(piece.tokens, mnemos.detach(carried) if carried else None, reset=piece.reset)
        carried = state if carries else None
        return functional.cross_entropy(logits.flatten(0, 1), piece.targets.flatten())

    fit(network, loss, steps, learning_rate=learning_rate, inertia=0.99, advance=advance)


@torch.no_grad()
def bits(
    network: Transformer,
    texts: Novels,
    places: Sequence[int],
    generator: torch.Generator,
    *,
    each: int = 2,
    length: int = 128,
    carries: bool = True,
) -> dict[str, float]:
    """Bits per byte of unseen texts, by how many steps the memory has seen.

    Args:
        places: where the ranges of steps end, ascending; "64" stands for the steps before the 64th.
        each: stretches of every text, which begin anywhere within it, the memory empty.
        length: steps at a time.
    """
    stretches = torch.stack(list(_stretches(texts.test, places[-1] + 1, each, generator)))
    costs, state = [], None
    for piece in stretches[:, :-1].split(length, dim=1):
        logits, after = network(piece, state)
        state = after if carries else None
        costs.append(logits.log_softmax(2))
    targets = stretches[:, 1:]
    nats = -torch.cat(costs, dim=1).gather(2, targets.unsqueeze(2)).squeeze(2)
    bytes_read = texts.lengths[targets]
    ranges = ((end, slice(begin, end)) for begin, end in pairwise([0, *places]))
    return {
        str(end): (nats[:, place].sum() / bytes_read[:, place].sum() / math.log(2)).item()
        for end, place in ranges
    }


def _stretches(
    texts: Sequence[Tensor], length: int, each: int, generator: torch.Generator
) -> Iterator[Int[Tensor, "time"]]:
    for text in texts:
        begins = torch.randint(len(text) - length, (each,), generator=generator)
        yield from (text[begin : begin + length] for begin in islice(begins.tolist(), each))
