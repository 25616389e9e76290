"""Saying again what was said some steps ago, in an endless stream: how far back does a memory reach?"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def segments(
    rows: int, length: int, lags: Sequence[int], vocabulary: int, generator: torch.Generator
) -> Iterator[tuple[Int[Tensor, "rows time"], Int[Tensor, "rows time lags"]]]:
    """Random tokens, and for each lag the token that many steps before; segment after segment, for ever.

    The tokens are independent, so nothing but memory beats chance, 1 / vocabulary. Targets of the first
    max(lags) steps were said before the stream began.

    Args:
        rows: streams side by side.
        length: steps of a segment.
        lags: in steps, each at least 1.
    """
    reach = max(lags)
    past = torch.randint(vocabulary, (rows, reach), generator=generator)
    while True:
        tokens = torch.randint(vocabulary, (rows, length), generator=generator)
        past = torch.cat([past, tokens], dim=1)
        yield tokens, torch.stack([past[:, reach - lag : reach - lag + length] for lag in lags], dim=2)
        past = past[:, length:]
