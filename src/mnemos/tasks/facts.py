"""Facts to be learned by heart: random keys with one of a few answers each, and nothing in common."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Facts(NamedTuple):
    keys: Float[Tensor, "time keys"]  # standard normal
    answers: Int[Tensor, " time"]


def random_facts(count: int, size: int, answers: int, generator: torch.Generator) -> Facts:
    """`count` facts with keys of width `size`, each with one of `answers` answers, all equally likely."""
    keys = torch.randn(count, size, generator=generator)
    return Facts(keys, torch.randint(answers, (count,), generator=generator))
