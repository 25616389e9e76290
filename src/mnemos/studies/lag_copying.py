"""What the studies of segment memories share: a stack of them that says again what was said before."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import mnemos
from mnemos.memories.base import Memory
from mnemos.models.transformer import Block
from mnemos.progress import Advance
from mnemos.studies.fit import fit, mean
from mnemos.tasks import lagging

ROWS, VOCABULARY = 16, 8
CHANCE = 1 / VOCABULARY


class Stack(nn.Module):
    """Tokens in, one guess per lag out."""

    def __init__(self, memories: Sequence[Memory], lags: Sequence[int]) -> None:
        super().__init__()
        width = memories[0].input_size
        self.memories = list(memories)
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(memory, width) for memory in memories)
        self.norm, self.output = nn.RMSNorm(width), nn.Linear(width, len(lags) * VOCABULARY)
        self.lags = tuple(lags)

    def forward(self, tokens: Tensor, states: tuple[Any, ...] | None) -> tuple[Tensor, tuple[Any, ...]]:
        hidden, after = self.embedding(tokens), []
        for block, state in zip(self.blocks, states or [None] * len(self.blocks), strict=True):
            hidden, _, state = block(hidden, state, None, None)
            after.append(state)
        logits = self.output(self.norm(hidden))
        return logits.unflatten(-1, (len(self.lags), VOCABULARY)), tuple(after)


def learn(
    stack: Stack,
    length: int,
    steps: int,
    generator: torch.Generator,
    advance: Advance,
    *,
    carries: bool = True,
    besides: Callable[[], Tensor] | None = None,
) -> dict[int, float]:
    """Trains on one stream, a segment per step, and returns the accuracy by lag on a stream of its own.

    Args:
        length: of a segment.
        carries: whether a segment begins with what the one before left, without its history.
        besides: a loss beside that of the guesses, asked for when they have been made.
    """
    stream = lagging.segments(ROWS, length, stack.lags, VOCABULARY, generator)
    carried: tuple[Any, ...] | None = None

    def loss(step: int) -> Tensor:
        nonlocal carried
        tokens, targets = next(stream)
        logits, states = stack(tokens, mnemos.detach(carried) if carried else None)
        carried = states if carries else None
        guessed = functional.cross_entropy(logits.flatten(0, 2), targets.flatten())
        return guessed if besides is None else guessed + besides()

    fit(stack, loss, steps, learning_rate=3e-3, advance=advance)
    unseen = lagging.segments(ROWS, length, stack.lags, VOCABULARY, generator)
    right = list(_answers(stack, unseen, carries, segments=60))[10:]  # the first lags lie before the stream
    return {
        lag: mean(answers[:, :, i].double().mean() for answers in right) for i, lag in enumerate(stack.lags)
    }


@torch.no_grad()
def _answers(
    stack: Stack, stream: Iterator[tuple[Tensor, Tensor]], carries: bool, segments: int
) -> Iterator[Tensor]:
    """Which guesses were right, segment by segment."""
    states = None
    for _ in range(segments):
        tokens, targets = next(stream)
        logits, after = stack(tokens, states)
        states = after if carries else None
        yield logits.argmax(-1) == targets
