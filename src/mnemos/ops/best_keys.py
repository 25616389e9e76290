"""The best of very many keys for every query, exactly, without ever holding all scores at once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mnemos.ops.looking import may_look

SCORES = 1 << 20  # that are held at once: about what a core's cache takes
GROUP = 16  # keys of which at first only the best counts, a power of two


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
    batch, heads, time, _ = queries.shape
    seen = keys.shape[2]
    # One product for each head: on a CPU a batch of products of so few rows takes four times as long.
    tables = functional.pad(keys, (0, 0, 0, -seen % GROUP)).flatten(0, 1).unbind(0)
    found: list[list[Tensor]] = [[] for _ in tables]
    for begin in range(0, time, max(1, SCORES // seen)):
        some = slice(begin, begin + max(1, SCORES // seen))
        start, end = first[:, some].unsqueeze(2), last[:, some].unsqueeze(2)
        low, high, inner = _bounds(start, end, tables[0].shape[0], count)
        column = torch.arange(low, high, device=keys.device)
        edges = [(edge, column[edge]) for edge in (slice(0, inner[0]), slice(inner[1], None))]
        outside = [(edge, (x < start) | (x > end)) for edge, x in edges]
        for number, asked in enumerate(queries[:, :, some].flatten(0, 1).unbind(0)):
            scores = asked @ tables[number][low:high].mT
            for edge, beyond in outside:
                scores[:, edge].masked_fill_(beyond[number // heads], torch.finfo(scores.dtype).min)
            scores[:, max(seen - low, 0) :] = -torch.inf
            found[number].append(_best(scores, min(count, seen)) + low)
    return torch.stack([torch.cat(parts) for parts in found]).unflatten(0, (batch, heads))


def _bounds(start: Tensor, end: Tensor, columns: int, count: int) -> tuple[int, int, tuple[int, int]]:
    """The columns that some query may find, from and to before, in whole groups that hold `count` at least;
    and, counted from there, those that every query may."""
    if not may_look(start):
        return 0, columns, (columns, columns)
    low, high = max(int(start.min()), 0), min(int(end.max()) + 1, columns)
    width = min(-(-max(high - low, count + GROUP - 1) // GROUP) * GROUP, columns)
    low = max(min(low, columns - width), 0)
    from_, to = (min(max(x - low, 0), width) for x in (int(start.max()), int(end.min()) + 1))
    return low, low + width, (from_, max(from_, to))


def _best(scores: Float[Tensor, "rows seen"], count: int) -> Int[Tensor, "rows found"]:
    """Where the greatest lie. None of them is in a group of which `count` others have a greater greatest."""
    groups = scores.unflatten(1, (GROUP, -1))
    greatest = scores
    while greatest.shape[1] > groups.shape[2]:  # faster than amax over an axis in the middle
        greatest = torch.maximum(*greatest.chunk(2, dim=1))
    chosen = greatest.topk(min(count, greatest.shape[1]), sorted=False).indices
    candidates = groups.gather(2, chosen.unsqueeze(1).expand(-1, GROUP, -1)).flatten(1)
    place = candidates.topk(count).indices
    within, which = place // chosen.shape[1], place % chosen.shape[1]
    return within * groups.shape[2] + chosen.gather(1, which)
