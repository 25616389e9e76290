"""What to let go: a policy is a score for every record, and the lowest score goes first.

Reading does the same to a record under every policy: it sets `last_read` and adds one to
`times_read`. What a policy makes of these facts is its score, so the same object serves a store,
whose clock is in seconds, and a memory's state, whose clock is in steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


class Usage(NamedTuple):
    """What is known of each record; the trailing axis is the record. Times are in the owner's clock."""

    ids: Int[Tensor, "*rows slots"]  # in order of first writing, never reused
    written_at: Float[Tensor, "*rows slots"]
    last_read: Float[Tensor, "*rows slots"]  # equals written_at until the first read
    times_read: Int[Tensor, "*rows slots"]
    strength: Float[Tensor, "*rows slots"]  # as the writer gave it, for instance its surprise


Score = Callable[[Usage, Shaped[Tensor, "*rows slots keys"], float | Tensor], Float[Tensor, "*rows slots"]]


@dataclass(frozen=True)
class Policy:
    """What to let go first.

    Args:
        name: how people and snapshots call it, parameters included.
        score: (usage, keys, now) -> the worth of every record in float64; the least worth goes first,
            and among equals the lowest id. Keys are empty, of shape (*rows, slots, 0), unless
            `reads_keys`. A function of a module, not a lambda, so that the policy can be pickled: a
            memory that holds it travels to other processes.
        reads_keys: whether the score looks at the keys, which costs reading them all.
    """

    name: str
    score: Score
    reads_keys: bool = False


def order_of_departure(
    policy: Policy, usage: Usage, keys: Shaped[Tensor, "*rows slots keys"], now: float | Tensor
) -> Int[Tensor, "*rows slots"]:
    """Positions in the order in which the records go: lowest score first, ties by lowest id."""
    by_id = usage.ids.argsort(dim=-1, stable=True)
    score = policy.score(usage, keys, now).gather(-1, by_id)
    return by_id.gather(-1, score.argsort(dim=-1, stable=True))


def first_in_first_out() -> Policy:
    """The oldest goes. The cheapest policy, and the only right one for a sliding window."""
    return Policy("first_in_first_out", _by_id)


def _by_id(usage: Usage, keys: Tensor, now: float | Tensor) -> Tensor:
    return usage.ids.double()


def least_recently_used() -> Policy:
    """What has been neither written nor read for longest goes."""
    return Policy("least_recently_used", _by_last_use)


def _by_last_use(usage: Usage, keys: Tensor, now: float | Tensor) -> Tensor:
    return usage.last_read.double()


def least_often_used() -> Policy:
    """What was read least often goes; among equals what was used longest ago, then the lowest id."""
    return Policy("least_often_used", _by_times_read)


def _by_times_read(usage: Usage, keys: Tensor, now: float | Tensor) -> Tensor:
    # The rank of the last use is a fraction below one, so it only ever breaks ties.
    times = usage.last_read.double().contiguous()
    earlier = torch.searchsorted(times.sort(dim=-1).values, times)  # equal times have equal ranks
    return usage.times_read.double() + earlier.double() / (usage.ids.shape[-1] + 1)


def decayed_strength(half_life: float) -> Policy:
    """Strength that halves every `half_life` since the last use and grows with every read.

    The worth is strength x (1 + times read) x 2^(-(now - last read) / half_life): a record lasts the
    longer the more often it has been of use.

    Args:
        half_life: in the owner's clock (seconds for a store, steps for a state), above 0.
    """
    if not half_life > 0:
        raise ValueError(f"half_life must be above 0, not {half_life}")
    return Policy(f"decayed_strength({half_life:g})", partial(_by_decayed_strength, half_life=half_life))


def _by_decayed_strength(usage: Usage, keys: Tensor, now: float | Tensor, half_life: float) -> Tensor:
    # In logarithms: 2^-age underflows to zero, and then all the old would be equal.
    reinforced = usage.strength.double().log2() + (1 + usage.times_read).double().log2()
    return reinforced + (usage.last_read.double() - now) / half_life


def least_surprising() -> Policy:
    """What surprised least when it was written goes: the strength given to `write`, unchanged by time."""
    return Policy("least_surprising", _by_strength)


def _by_strength(usage: Usage, keys: Tensor, now: float | Tensor) -> Tensor:
    return usage.strength.double()


def most_redundant() -> Policy:
    """What a later record resembles most goes, so that of near duplicates the newest stays.

    The worth is the Euclidean distance to the nearest key among later records (infinite for the last).
    Costs the square of the number of records.
    """
    return Policy("most_redundant", _by_distance_to_later, reads_keys=True)


def _by_distance_to_later(usage: Usage, keys: Tensor, now: float | Tensor) -> Tensor:
    order = usage.ids.argsort(dim=-1)
    position = order.argsort(dim=-1)
    sorted_keys = keys.gather(-2, order.unsqueeze(-1).expand_as(keys)).double()
    return _nearest_later(sorted_keys).gather(-1, position)


def _nearest_later(keys: Tensor, block: int = 1024) -> Tensor:
    """For each key the distance to the nearest one after it, a block of rows at a time."""
    count = keys.shape[-2]
    nearest = []
    for start in range(0, count, block):
        rows = keys[..., start : start + block, :]
        later = keys[..., start:, :]
        distance = torch.cdist(rows, later)
        positions = torch.arange(later.shape[-2], device=keys.device)
        own = torch.arange(rows.shape[-2], device=keys.device)
        distance = distance.masked_fill(positions <= own.unsqueeze(-1), torch.inf)
        nearest.append(distance.amin(dim=-1) if later.shape[-2] else distance.new_zeros(()))
    return torch.cat(nearest, dim=-1) if nearest else keys.new_zeros(keys.shape[:-1])


def reservoir(seed: int) -> Policy:
    """A uniform random sample of all that was ever written, whatever its use.

    Every id draws a fixed random worth, and the largest stay: the same sample in law as Vitter's
    algorithm R (1985), but a function of the ids alone, so that it does not depend on when it is asked.
    """
    return Policy(f"reservoir({seed})", partial(_by_lot, seed=seed))


def _by_lot(usage: Usage, keys: Tensor, now: float | Tensor, seed: int) -> Tensor:
    return _uniform(usage.ids, seed)


def _uniform(ids: Tensor, seed: int) -> Tensor:
    """A number in [0, 1) for every id: SplitMix64 (Steele, Lea & Flood 2014) in wrapping int64."""

    def shifted(x: Tensor, bits: int) -> Tensor:  # the logical shift that torch's >> is not
        return (x >> bits) & ((1 << (64 - bits)) - 1)

    def signed(x: int) -> int:
        return (x & (2**64 - 1)) - (2**64 if x & 2**63 else 0)

    mixed = (ids.long() + seed + 1) * signed(0x9E3779B97F4A7C15)
    mixed = (mixed ^ shifted(mixed, 30)) * signed(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ shifted(mixed, 27)) * signed(0x94D049BB133111EB)
    return shifted(mixed ^ shifted(mixed, 31), 11).double() / 2**53
