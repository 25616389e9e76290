"""A ring of slots: the n-th record lies in slot n modulo their number, so that the last are kept.

What lies where at every step of a stretch follows from counting alone. So a memory that keeps the last
records need not go step by step: it looks at all that could be seen, its slots and then the steps of the
stretch themselves, through a mask.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


class Turn(NamedTuple):
    """What a stretch does to a ring. Records are numbered from its beginning, the older ones below zero."""

    number: Int[Tensor, "batch seen"]  # of what lies in each slot and of each step's; beyond all if none
    oldest: Int[Tensor, "batch times"]  # before each step and at the end: the first that is still kept
    total: Int[Tensor, "batch times"]  # before each step and at the end: one more than the last
    clock: Int[Tensor, " batch"]  # records so far, after the stretch


def filled(clock: Int[Tensor, " batch"], slots: int) -> Bool[Tensor, "batch slots"]:
    """Which slots hold something after `clock` records."""
    return torch.arange(slots, device=clock.device) < clock.unsqueeze(1)


def turn(
    clock: Int[Tensor, " batch"],
    slots: int,
    real: Bool[Tensor, "batch time"],
    reset: Bool[Tensor, "batch time"] | None = None,
) -> Turn:
    """A stretch in which every real step leaves a record.

    Args:
        clock: records so far, of every row.
        slots: how many are kept.
        real: true where a step leaves a record.
        reset: true where a row starts afresh before the step, real or not.
    """
    count = functional.pad(real.cumsum(1), (1, 0))
    start = -clock.unsqueeze(1).expand_as(count)  # the first record since the last reset
    if reset is not None:
        start = torch.where(functional.pad(reset, (0, 1)), count, start).cummax(1).values
    old = -1 - (clock.unsqueeze(1) - 1 - torch.arange(slots, device=clock.device)) % slots
    beyond = torch.iinfo(torch.int64).max
    number = [old.masked_fill(~filled(clock, slots), beyond), count[:, :-1].masked_fill(~real, beyond)]
    return Turn(
        number=torch.cat(number, dim=1),
        oldest=torch.maximum(start, count - slots),
        total=count,
        clock=count[:, -1] - start[:, -1],
    )


def visible(turn: Turn) -> Bool[Tensor, "batch time seen"]:
    """What of the old slots and then of the steps lies in the ring just before each step."""
    number = turn.number.unsqueeze(1)
    return (number >= turn.oldest[:, :-1, None]) & (number < turn.total[:, :-1, None])


def after(
    old: Float[Tensor, "batch slots width"], new: Float[Tensor, "batch time width"], turn: Turn
) -> Float[Tensor, "batch slots width"]:
    """The slots at the end, from those at the beginning and the steps; zeros where nothing is left."""
    slots = old.shape[1]
    number, end = turn.number, turn.total[:, -1:]
    left = (number >= turn.oldest[:, -1:]) & (number < end)
    # Slot by slot what is left; all else goes into one slot too many.
    place = ((number - end + turn.clock.unsqueeze(1)) % slots).masked_fill(~left, slots)
    source = torch.arange(place.shape[1], device=place.device).expand_as(place)
    source = place.new_zeros(place.shape[0], slots + 1).scatter(1, place, source)[:, :slots]
    seen = torch.cat([old, new.to(old)], dim=1)
    found = seen.gather(1, source.unsqueeze(-1).expand(-1, -1, seen.shape[2]))
    return found.masked_fill(~filled(turn.clock, slots).unsqueeze(-1), 0)
