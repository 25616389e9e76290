"""What a step sees of the last real steps of its own document, wherever masks and resets lie."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional

from mnemos.ops.documents import pick


def windows(
    history: Tensor,
    steps: Tensor,
    nothing: int,
    document: Int[Tensor, "batch time"],
    real: Bool[Tensor, "batch time"] | None,
    count: int,
    apart: int = 1,
) -> tuple[Tensor, Tensor]:
    """Of every step: itself and the real steps of its document before it, `apart` from each other.

    Args:
        history: the steps before, (batch, (count - 1) * apart, ...), which belong to document 0.
        steps: (batch, time, ...).
        nothing: what is seen where the document had not begun.
        document: which one every step belongs to, ascending from 0: `reset.cumsum(1)`.
        real: None where all steps are.
        count: how many steps a step sees, itself included.

    Returns:
        (batch, time, ..., count), newest first, undefined at masked steps; the history after the last step.
    """
    time, length = document.shape[1], history.shape[1]
    joined = torch.cat([history, steps], dim=1)
    document = functional.pad(document, (length, 0))
    last = document[:, -1:] if document.shape[1] else document
    place = None
    if real is not None:  # real steps are moved together behind the history, masked ones before it
        order = functional.pad(real, (length, 0), value=True).byte().argsort(dim=1, stable=True)
        joined, document = pick(joined, order), document.gather(1, order)
        place = (real.cumsum(1) + time - 1 - real.sum(1, keepdim=True)).clamp_min(0)
    starts = [length - number * apart for number in range(count)]
    same = [document[:, start : start + time] == document[:, length:] for start in starts]
    seen = [
        _where(here, joined[:, start : start + time], nothing)
        for start, here in zip(starts, same, strict=True)
    ]
    found = torch.stack(seen, dim=-1)
    found = found if place is None else pick(found, place)
    return found, _where(document[:, time:] == last, joined[:, time:], nothing)


def _where(condition: Bool[Tensor, "batch time"], x: Tensor, nothing: int) -> Tensor:
    return torch.where(condition.view(*condition.shape, *[1] * (x.dim() - 2)), x, nothing)
