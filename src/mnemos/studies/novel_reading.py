"""What the studies of language models share: novels byte by byte, a decoder that reads them, and its cost.

A decoder reads streams of whole novels piece by piece, and its memory goes on from piece to piece without
its history. It is judged by bits per byte, at every distance from where its memory began.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

import mnemos
from mnemos.models.transformer import Transformer
from mnemos.progress import Advance
from mnemos.studies.fit import fit
from mnemos.tasks.reading import pieces
from mnemos.tasks.text import novels

VOCABULARY = 257  # every byte, and the mark of a start
ROWS = 16  # streams side by side


class Bits(NamedTuple):
    """What a byte costs."""

    overall: float
    by_place: dict[str, float]  # by how many steps the memory has seen, in ranges named by where they end


def read_novels(count: int) -> tuple[list[Tensor], list[Tensor]]:
    """The bytes of the first so many novels for training, and of all those of the test."""
    split = novels()
    train, test = (
        [torch.frombuffer(bytearray(document.text.encode()), dtype=torch.uint8).long() for document in part]
        for part in (split.train[:count], split.test)
    )
    return train, test


def learn(
    network: Transformer,
    texts: Sequence[Int[Tensor, "_bytes"]],
    steps: int,
    generator: torch.Generator,
    advance: Advance,
    *,
    longest: int,
    carries: bool = True,
) -> None:
    """Trains on streams of texts, a piece of the network's context per step.

    Args:
        longest: steps of a text that are read on end, from anywhere within it on; so that the network learns
            to begin with an empty memory, too.
        carries: whether a piece begins with what the one before left, without its history.
    """
    stream = pieces(texts, ROWS, network.context, network.start, generator, longest=longest)
    carried: Any = None

    def loss(step: int) -> Tensor:
        nonlocal carried
        piece = next(stream)
        logits, state = network(piece.tokens, mnemos.detach(carried) if carried else None, reset=piece.reset)
        carried = state if carries else None
        return functional.cross_entropy(logits.flatten(0, 1), piece.targets.flatten())

    fit(network, loss, steps, learning_rate=5e-3, inertia=0.99, advance=advance)


@torch.no_grad()
def bits(
    network: Callable[[Tensor, Any], tuple[Tensor, Any]],
    texts: Sequence[Int[Tensor, "_bytes"]],
    places: Sequence[int],
    length: int,
    generator: torch.Generator,
    *,
    each: int = 16,
    carries: bool = True,
) -> Bits:
    """Bits per byte of unseen texts.

    Args:
        network: of tokens and a state to logits and a state.
        places: where the ranges of steps end, ascending; the first begins with the first step.
        length: steps at a time.
        each: stretches of every text, which begin anywhere within it, the memory empty.
    """
    size = places[-1] + 1
    begins = ((text, torch.randint(len(text) - size, (each,), generator=generator)) for text in texts)
    stretches = torch.stack([text[begin : begin + size] for text, chosen in begins for begin in chosen])
    costs, state = [], None
    for inputs, targets in zip(
        *(part.split(length, dim=1) for part in (stretches[:, :-1], stretches[:, 1:])), strict=True
    ):
        logits, after = network(inputs, state)
        state = after if carries else None
        costs.append(functional.cross_entropy(logits.mT, targets, reduction="none"))
    paid = torch.cat(costs, dim=1).double().mean(0) / math.log(2)
    ranges = {str(end): paid[begin:end].mean().item() for begin, end in pairwise([0, *places])}
    return Bits(paid.mean().item(), ranges)
