"""Where in its document a step stands, beside the steps that are carried from before."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor


class Places(NamedTuple):
    """Of the steps seen: those that are carried, and then those of a stretch."""

    document: Int[Tensor, "batch seen"]  # 0 for the one at hand, 1 from the first reset on; -1 for padding
    number: Int[Tensor, "batch seen"]  # real steps before it in its document; below 0 where none is carried
    clock: Int[Tensor, " batch"]  # real steps of the last document, when the stretch is over
    last: Int[Tensor, " batch"]  # the last document


def places(
    clock: Int[Tensor, " batch"],
    carried: int,
    real: Bool[Tensor, "batch time"],
    reset: Bool[Tensor, "batch time"],
) -> Places:
    """Counts real steps alone, so that padding takes no room and a cut between two stretches is nothing.

    Args:
        clock: real steps of the document so far, of which the last `carried` are carried, the latest last.
        real: true where a step is real.
        reset: true where a row starts afresh before the step, real or not.
    """
    so_far = real.cumsum(1)
    before = so_far - real.to(so_far.dtype)
    # The real steps of the stretch before the document began; below zero if it began before the stretch.
    start = torch.cat([-clock.unsqueeze(1), torch.where(reset, before, -clock.unsqueeze(1))], dim=1)
    start = start.cummax(1).values
    old = clock.unsqueeze(1) + torch.arange(-carried, 0, device=clock.device)
    number = torch.cat([old, before - start[:, 1:]], dim=1)
    index = reset.cumsum(1)
    document = torch.cat([torch.zeros_like(old), index.masked_fill(~real, -1)], dim=1)
    return Places(document, number, real.sum(1) - start[:, -1], reset.sum(1))


def real_last(document: Int[Tensor, "batch seen"]) -> Int[Tensor, "batch seen"]:
    """The order in which padding comes first; all else stays in its own order."""
    return (document >= 0).byte().argsort(dim=1, stable=True)


def pick(x: Shaped[Tensor, "batch seen *width"], order: Int[Tensor, "batch time"]) -> Tensor:
    """The steps `order` of each row, (batch, time, *width)."""
    return x.gather(1, order.view(*order.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))
