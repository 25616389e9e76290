"""The adding problem (Hochreiter & Schmidhuber 1997, experiment 4)."""

import torch
from jaxtyping import Float
from torch import Tensor

INPUT_SIZE = 2
BASELINE = (
    1 / 6
)  # mean squared error of always answering 1, the mean: the variance of the sum of two uniforms


def batch(
    size: int, time: int, generator: torch.Generator
) -> tuple[Float[Tensor, "batch time 2"], Float[Tensor, " batch"]]:
    """Sequences of uniform numbers in [0, 1), two of them marked; the target is the sum of those two.

    The first mark lies in the first half and the second in the second half (as in Arjovsky, Shah &
    Bengio 2016), so that a network must remember over half the length on average.

    Args:
        time: length of a sequence, at least 2.
    """
    numbers = torch.rand(size, time, generator=generator)
    half = time // 2
    first = torch.randint(half, (size, 1), generator=generator)
    second = torch.randint(half, time, (size, 1), generator=generator)
    marks = torch.zeros(size, time).scatter_(1, torch.cat([first, second], dim=1), 1.0)
    return torch.stack([numbers, marks], dim=2), (numbers * marks).sum(1)
