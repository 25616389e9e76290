"""Counters that saturate, at addresses that never change: what Kanerva's memory stores and recalls.

Kanerva 1988: a word of ±1 is stored by adding it to the counters of every location within a radius of its
address, and recalled by summing the counters of every location within the radius of the address asked:

    C_i <- clip(C_i + w)    and    s = Σ_i C_i,    over all i with d(x, h_i) <= r

Which locations are active does not depend on what is stored. So they are found for all steps at once, and
only their counters are touched, one step after the other: where counters saturate, the order counts.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mnemos.ops.hamming import hamming_distances_naive, within_radius


def store_and_recall_loop(
    counters: Int[Tensor, "batch slots width"],
    addresses: Int[Tensor, "words slots"],
    queries: Int[Tensor, "batch time words"],
    changes: Int[Tensor, "batch time width"],
    real: Bool[Tensor, "batch time"],
    reset: Bool[Tensor, "batch time"],
    radius: int,
    limit: int,
) -> tuple[Int[Tensor, "batch time width"], Int[Tensor, "batch slots width"]]:
    """Recalls, then stores, step by step and with every location: the specification, on any device.

    Args:
        addresses: of the locations, packed and word by word as in `hamming`.
        queries: where each step recalls and stores, packed.
        changes: what each step stores, from -limit to limit.
        real: false where a step recalls zeros and stores nothing.
        reset: true where the counters are zeroed before the step.
        limit: the greatest size of a counter.

    Returns:
        The sums that each step recalled, int32, and the counters after the last.
    """
    sums = []
    for query, change, step, fresh in zip(
        *(x.unbind(1) for x in (queries, changes, real, reset)), strict=True
    ):
        active = hamming_distances_naive(query, addresses) <= radius
        active = (active & step.unsqueeze(1)).int().unsqueeze(-1)
        counters = counters.masked_fill(fresh[:, None, None], 0)
        sums.append((active * counters).sum(1, dtype=torch.int32))
        counters = (counters + active * change.unsqueeze(1)).clamp(-limit, limit).to(counters.dtype)
    return torch.stack(sums, 1) if sums else changes.int(), counters


def store_and_recall(
    counters: Int[Tensor, "batch slots width"],
    addresses: Int[Tensor, "words slots"],
    queries: Int[Tensor, "batch time words"],
    changes: Int[Tensor, "batch time width"],
    real: Bool[Tensor, "batch time"],
    reset: Bool[Tensor, "batch time"],
    radius: int,
    limit: int,
) -> tuple[Int[Tensor, "batch time width"], Int[Tensor, "batch slots width"]]:
    """The same as `store_and_recall_loop`, by the active locations alone."""
    return _store_and_recall(counters, addresses, queries, changes, real, reset, radius, limit)


def store_(
    counters: Int[Tensor, "batch slots width"],
    pairs: Int[Tensor, "pairs pair"],
    changes: Int[Tensor, "batch time width"],
    limit: int,
) -> None:
    """Makes all changes in the given counters, in the order of time.

    Args:
        pairs: which step stores where: `within_radius` of the steps of all rows, one row after the other.
        changes: from -limit to limit.
    """
    time, cells = changes.shape[1], _array(counters)
    for step, (active, change) in enumerate(_steps(pairs, changes, counters.dtype, limit)):
        _add(cells[step // time], active, change)


def copy(x: Tensor) -> Tensor:
    """A copy; by numpy, which asks for huge pages, in half the time where it is large."""
    return torch.from_numpy(x.numpy().copy()) if x.device.type == "cpu" else x.clone()


def recall(
    counters: Int[Tensor, "batch slots width"], pairs: Int[Tensor, "pairs pair"], time: int
) -> Int[Tensor, "batch time width"]:
    """The sums over the locations of every query, int32.

    Args:
        pairs: as for `store_`, of `time` queries for every row.
    """
    batch, _, width = counters.shape
    sums = counters.new_zeros(batch * time, width, dtype=torch.int32)
    cells, answers = _array(counters), _array(sums)
    for query, active in enumerate(_active(pairs, batch * time)):
        answers[query] = _sum(cells[query // time], active)
    return sums.unflatten(0, (batch, time))


# An operator of its own, since the compiler cannot look into numpy, nor at lists of unknown length.
@torch.library.custom_op("mnemos::store_and_recall", mutates_args=())
def _store_and_recall(
    counters: Tensor,
    addresses: Tensor,
    queries: Tensor,
    changes: Tensor,
    real: Tensor,
    reset: Tensor,
    radius: int,
    limit: int,
) -> tuple[Tensor, Tensor]:
    counters, (batch, time, width) = copy(counters), changes.shape
    sums = counters.new_zeros(batch * time, width, dtype=torch.int32)
    cells, answers = _array(counters), _array(sums)
    pairs = within_radius(queries.flatten(0, 1), addresses, radius)
    steps = _steps(pairs, changes, counters.dtype, limit)
    flags = zip(real.flatten().tolist(), reset.flatten().tolist(), strict=True)
    for step, ((active, change), (counts, starts)) in enumerate(zip(steps, flags, strict=True)):
        if starts:
            cells[step // time][:] = 0
        if counts:
            answers[step] = _sum(cells[step // time], active)
            _add(cells[step // time], active, change)
    return sums.unflatten(0, (batch, time)), counters


@_store_and_recall.register_fake
def _(
    counters: Tensor,
    addresses: Tensor,
    queries: Tensor,
    changes: Tensor,
    real: Tensor,
    reset: Tensor,
    radius: int,
    limit: int,
) -> tuple[Tensor, Tensor]:
    return changes.new_empty(changes.shape, dtype=torch.int32), torch.empty_like(counters)


# A step touches a few rows only. On the CPU it is done by numpy, whose calls take a fraction of torch's time.


def _array(x: Tensor) -> Any:
    """The same memory as an array of numpy on the CPU, the tensor itself elsewhere."""
    return x.numpy() if x.device.type == "cpu" else x


def _active(pairs: Tensor, queries: int) -> list[Any]:
    """The locations of every query."""
    counts, slots = torch.bincount(pairs[:, 0], minlength=queries), _array(pairs[:, 1])
    ends = zip(counts.tolist(), counts.cumsum(0).tolist(), strict=True)
    return [slots[end - count : end] for count, end in ends]


def _steps(pairs: Tensor, changes: Tensor, dtype: torch.dtype, limit: int) -> Iterator[tuple[Any, Any]]:
    """For every step its locations, its change, and what counters are clipped to before that is added.

    Clipped so, the sum is within the limits, and nothing overflows on the way.
    """
    changes = changes.flatten(0, 1)
    lowest, highest = (-limit - changes).clamp(min=-limit), (limit - changes).clamp(max=limit)
    bounded = _array(torch.stack([changes, lowest, highest], dim=1).to(dtype))
    return zip(_active(pairs, len(changes)), bounded, strict=True)


def _sum(cells: Any, active: Any) -> Any:
    if isinstance(cells, np.ndarray):
        return cells.take(active, 0).sum(0, dtype=np.int32)
    return cells.index_select(0, active).sum(0, dtype=torch.int32)


def _add(cells: Any, active: Any, change: Any) -> None:
    added, lowest, highest = change
    if isinstance(cells, np.ndarray):
        rows = cells.take(active, 0)
        np.maximum(rows, lowest, out=rows)
        np.minimum(rows, highest, out=rows)
        rows += added
        cells[active] = rows
    else:
        rows = cells.index_select(0, active).maximum(lowest).minimum(highest)
        cells.index_copy_(0, active, rows + added)
