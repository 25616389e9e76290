"""The copying memory problem (Hochreiter & Schmidhuber 1997; in this form Arjovsky, Shah & Bengio 2016)."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

SYMBOLS = 8  # what is to be remembered
LENGTH = 10  # how many of them
BLANK, GO = SYMBOLS, SYMBOLS + 1
VOCABULARY = SYMBOLS + 2


def batch(
    size: int, delay: int, generator: torch.Generator
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Ten symbols, `delay` blanks of which the last is a signal to go, and ten blanks to answer in.

    The target is blank up to the signal and then the ten symbols in order. Sequences are `delay` + 20
    long.

    Args:
        delay: T of the paper, at least 1.
    """
    symbols = torch.randint(SYMBOLS, (size, LENGTH), generator=generator)
    inputs = torch.full((size, delay + 2 * LENGTH), BLANK)
    inputs[:, :LENGTH] = symbols
    inputs[:, LENGTH + delay - 1] = GO
    targets = torch.full_like(inputs, BLANK)
    targets[:, -LENGTH:] = symbols
    return inputs, targets


def memoryless_loss(delay: int) -> float:
    """The cross-entropy, in nats per step, of knowing when to answer but not what: 10 log 8 / (T + 20)."""
    return LENGTH * math.log(SYMBOLS) / (delay + 2 * LENGTH)
