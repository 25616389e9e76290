"""The best of very many keys for every query, exactly, without ever holding all scores at once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

SCORES = 1 << 20  # that are held at once: about what a core's cache takes


@torch.no_grad()
def best_keys(
    queries: Float[Tensor, "batch heads time keys"],
    keys: Float[Tensor, "batch heads seen keys"],
    first: Int[Tensor, "batch time"],
    last: Int[Tensor, "batch time"],
    count: int,
) -> Int[Tensor, "batch heads time found"]:
    """The positions of the `count` greatest products, best first, of all if there are fewer keys.

    Args:
        first: where what a query may find begins.
        last: where it ends, itself included. Where there is less than `count` between, the rest of the
            positions lie outside.
    """
    batch, heads, _, _ = queries.shape
    seen = keys.shape[2]
    column = torch.arange(seen, device=keys.device)
    keys = keys.contiguous()
    length = max(1, SCORES // (batch * heads * seen))
    steps = (queries.split(length, 2), first.split(length, 1), last.split(length, 1))
    found = []
    for some, start, end in zip(*steps, strict=True):
        scores = some @ keys.mT
        outside = (column < start.unsqueeze(2)) | (column > end.unsqueeze(2))
        scores.masked_fill_(outside.unsqueeze(1), torch.finfo(scores.dtype).min)
        found.append(scores.topk(min(count, seen), dim=3).indices)
    return torch.cat(found, dim=2)
