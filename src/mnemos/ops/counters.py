"""Counters that saturate, at addresses that never change: what Kanerva's memory stores and recalls.

Kanerva 1988: a word of ±1 is stored by adding it to the counters of every location within a radius of its
address, and recalled by summing the counters of every location within the radius of the address asked:

    C_i <- clip(C_i + w)    and    s = Σ_i C_i,    over all i with d(x, h_i) <= r

Which locations are active does not depend on what is stored. So they are found for all steps at once, and
only their counters are touched, one step after the other: where counters saturate, the order counts.
"""

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


def store(
    counters: Int[Tensor, "batch slots width"],
    pairs: Int[Tensor, "pairs pair"],
    changes: Int[Tensor, "batch time width"],
    limit: int,
) -> Int[Tensor, "batch slots width"]:
    """The counters after all changes, in the order of time.

    Args:
        pairs: which step stores where: `within_radius` of the steps of all rows, one row after the other.
        changes: from -limit to limit.
    """
    counters, time = counters.clone(), changes.shape[1]
    for step, (active, change) in enumerate(zip(*_steps(pairs, changes, counters.dtype, limit), strict=True)):
        _add(counters[step // time], active, *change)
    return counters


def recall(
    counters: Int[Tensor, "batch slots width"], pairs: Int[Tensor, "pairs pair"], time: int
) -> Int[Tensor, "batch time width"]:
    """The sums over the locations of every query, int32.

    Args:
        pairs: as for `store`, of `time` queries for every row.
    """
    batch, _, width = counters.shape
    sums = counters.new_zeros(batch * time, width, dtype=torch.int32)
    for query, active in enumerate(_active(pairs, batch * time)):
        sums[query] = counters[query // time].index_select(0, active).sum(0, dtype=torch.int32)
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
    counters, (batch, time, width) = counters.clone(), changes.shape
    sums = counters.new_zeros(batch * time, width, dtype=torch.int32)
    pairs = within_radius(queries.flatten(0, 1), addresses, radius)
    flags = (real.flatten().tolist(), reset.flatten().tolist())
    steps = zip(*_steps(pairs, changes, counters.dtype, limit), *flags, strict=True)
    for step, (active, change, counts, starts) in enumerate(steps):
        row = counters[step // time]
        if starts:
            row.zero_()
        if counts:
            sums[step] = row.index_select(0, active).sum(0, dtype=torch.int32)
            _add(row, active, *change)
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


def _active(pairs: Tensor, queries: int) -> list[Tensor]:
    """The locations of every query."""
    counts = torch.bincount(pairs[:, 0], minlength=queries)
    ends = zip(counts.tolist(), counts.cumsum(0).tolist(), strict=True)
    return [pairs[end - count : end, 1] for count, end in ends]


def _steps(
    pairs: Tensor, changes: Tensor, dtype: torch.dtype, limit: int
) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
    """The locations of every step; its change, and what a counter is clipped to before that is added.

    Clipped so, the sum is within the limits, and nothing overflows on the way.
    """
    changes = changes.flatten(0, 1)
    lowest, highest = (-limit - changes).clamp(min=-limit), (limit - changes).clamp(max=limit)
    parts = (x.to(dtype).unbind(0) for x in (changes, lowest, highest))
    return _active(pairs, len(changes)), list(zip(*parts, strict=True))


def _add(row: Tensor, active: Tensor, change: Tensor, lowest: Tensor, highest: Tensor) -> None:
    counters = row.index_select(0, active)
    torch.maximum(counters, lowest, out=counters)
    torch.minimum(counters, highest, out=counters)
    counters += change
    if row.device.type == "cpu":
        row.numpy()[active.numpy()] = counters.numpy()  # a third of index_copy_'s time
    else:
        row.index_copy_(0, active, counters)
