"""What to let go: a policy scores every record, and the lowest score goes first.

Reading does the same to a record under every policy: it sets `last_read` and adds one to
`times_read`. What a policy makes of these facts is its score, so the same object serves a store,
whose clock is in seconds, and a memory's state, whose clock is in steps.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mnemos.retention.redundancy import distance_to_later


class Usage(NamedTuple):
    """What is known of each record; the trailing axis is the record. Times are in the owner's clock."""

    ids: Int[Tensor, "*rows slots"]  # in order of first writing, never reused
    written_at: Float[Tensor, "*rows slots"]
    last_read: Float[Tensor, "*rows slots"]  # equals written_at until the first read
    times_read: Int[Tensor, "*rows slots"]
    strength: Float[Tensor, "*rows slots"]  # as the writer gave it, for instance its surprise


Score = Callable[
    [Usage, Shaped[Tensor, "*rows slots keys"], float | Tensor], tuple[Shaped[Tensor, "*rows slots"], ...]
]


@dataclass(frozen=True)
class Policy:
    """What to let go first.

    Args:
        name: how people and snapshots call it, parameters included; `named` reads the built-in ones.
        score: (usage, keys, now) -> the worth of every record. The least worth goes first, among equals
            the lesser by the next tensor of the tuple, and in the end the lowest id. Keys are empty, of
            shape (*rows, slots, 0), unless `reads_keys`; packed bits come as zeros and ones. A function
            of a module, not a lambda, so that the policy can be pickled: a memory that holds it travels
            to other processes.
        reads_keys: whether the score looks at the keys, which costs reading them all.
    """

    name: str
    score: Score
    reads_keys: bool = False


def order_of_departure(
    policy: Policy, usage: Usage, keys: Shaped[Tensor, "*rows slots keys"], now: float | Tensor
) -> Int[Tensor, "*rows slots"]:
    """Positions in the order in which the records go; every row is decided by itself."""
    order = usage.ids.argsort(dim=-1, stable=True)
    for score in reversed(policy.score(usage, keys.detach(), now)):
        order = order.gather(-1, score.gather(-1, order).argsort(dim=-1, stable=True))
    return order


def first_to_go(scores: tuple[Tensor, ...], ids: Int[Tensor, "*rows slots"]) -> Int[Tensor, "*rows"]:
    """The first empty slot (id -1), or the one of least worth: `order_of_departure` without its sorting."""
    empty = ids < 0
    left = empty | ~empty.any(dim=-1, keepdim=True)
    for score in (*scores, ids):
        score = score.masked_fill(empty, 0)
        most = torch.inf if score.is_floating_point() else torch.iinfo(score.dtype).max
        left = left & (score == score.masked_fill(~left, most).amin(dim=-1, keepdim=True))
    return left.int().argmax(dim=-1)


def first_in_first_out() -> Policy:
    """The oldest goes. The cheapest policy, and the only right one for a sliding window."""
    return Policy("first_in_first_out", _by_id)


def _by_id(usage: Usage, keys: Tensor, now: float | Tensor) -> tuple[Tensor, ...]:
    return (usage.ids,)


def least_recently_used() -> Policy:
    """What has been neither written nor read for longest goes."""
    return Policy("least_recently_used", _by_last_use)


def _by_last_use(usage: Usage, keys: Tensor, now: float | Tensor) -> tuple[Tensor, ...]:
    return (usage.last_read,)


def least_often_used() -> Policy:
    """What was read least often goes; among equals what was used longest ago, then the lowest id."""
    return Policy("least_often_used", _by_times_read)


def _by_times_read(usage: Usage, keys: Tensor, now: float | Tensor) -> tuple[Tensor, ...]:
    return usage.times_read, usage.last_read


def decayed_strength(half_life: float) -> Policy:
    """Strength that halves every `half_life` since the last use and grows with every read.

    The worth is strength x (1 + times read) x 2^(-(now - last read) / half_life): a record lasts the
    longer the more often it has been of use.

    Args:
        half_life: in the owner's clock (seconds for a store, steps for a state), above 0.
    """
    if not half_life > 0:
        raise ValueError(f"half_life must be above 0, not {half_life}")
    name = f"decayed_strength({repr(half_life).removesuffix('.0')})"
    return Policy(name, partial(_by_decayed_strength, half_life=half_life))


def _by_decayed_strength(
    usage: Usage, keys: Tensor, now: float | Tensor, half_life: float
) -> tuple[Tensor, ...]:
    # In logarithms: 2^-age underflows to zero, and then all the old would be equal.
    reinforced = (usage.strength.double() * (1 + usage.times_read)).log2()
    return (reinforced + (usage.last_read.double() - now) / half_life,)


def least_surprising() -> Policy:
    """What surprised least when it was written goes: the strength given to `write`, unchanged by time."""
    return Policy("least_surprising", _by_strength)


def _by_strength(usage: Usage, keys: Tensor, now: float | Tensor) -> tuple[Tensor, ...]:
    return (usage.strength,)


def most_redundant() -> Policy:
    """What a later record resembles most goes, so that of near duplicates the newest stays.

    The worth is the Euclidean distance to the nearest key among later records (infinite for the last).
    Costs the square of the number of records.
    """
    return Policy("most_redundant", _by_distance_to_later, reads_keys=True)


def _by_distance_to_later(usage: Usage, keys: Tensor, now: float | Tensor) -> tuple[Tensor, ...]:
    order = usage.ids.argsort(dim=-1)
    by_age = keys.gather(-2, order.unsqueeze(-1).expand_as(keys))
    return (distance_to_later(by_age).gather(-1, order.argsort(dim=-1)),)


def reservoir(seed: int) -> Policy:
    """A uniform random sample of all that was ever written, whatever its use.

    Every id draws a fixed random worth, and the largest stay: the same sample in law as Vitter's
    algorithm R (1985), but a function of the ids alone, so that it does not depend on when it is asked.
    """
    # Seeds are mixed before ids are added: the samples of two near seeds must not be shifts of each other.
    start = int(_mixed(torch.tensor(seed, device="cpu")))
    return Policy(f"reservoir({seed})", partial(_by_lot, start=start))


def _by_lot(usage: Usage, keys: Tensor, now: float | Tensor, start: int) -> tuple[Tensor, ...]:
    return (_mixed(usage.ids.long() + start),)


def _mixed(number: Tensor) -> Tensor:
    """A well mixed int64 of each: SplitMix64 (Steele, Lea & Flood 2014), whose products wrap."""
    mixed = (number + 1) * _signed(0x9E3779B97F4A7C15)
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(0x94D049BB133111EB)
    return mixed ^ _shifted(mixed, 31)


def _shifted(number: Tensor, bits: int) -> Tensor:
    """The logical shift to the right, which torch's >> is not."""
    return (number >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    return number - (2**64 if number & 2**63 else 0)


# What `named` knows: how to make each, and the type of its one parameter if it has one.
_BUILT_IN: dict[str, tuple[Callable[..., Policy], type | None]] = {
    "first_in_first_out": (first_in_first_out, None),
    "least_recently_used": (least_recently_used, None),
    "least_often_used": (least_often_used, None),
    "decayed_strength(half_life)": (decayed_strength, float),
    "least_surprising": (least_surprising, None),
    "most_redundant": (most_redundant, None),
    "reservoir(seed)": (reservoir, int),
}
POLICY_NAMES = tuple(_BUILT_IN)


def named(name: str) -> Policy:
    """The policy of that name, `least_recently_used` or `decayed_strength(3600)`: inverse of `Policy.name`.

    Raises:
        ValueError: no such policy, listing those there are, or a parameter that does not fit.
    """
    parts = re.fullmatch(r"(\w+)(?:\((.+)\))?", name.strip())
    for signature, (make, kind) in _BUILT_IN.items():
        if parts and signature.partition("(")[0] == parts[1] and bool(parts[2]) == bool(kind):
            try:
                return make(kind(parts[2])) if kind else make()
            except ValueError as error:
                raise ValueError(f"{name!r} is no {signature}: {error}") from error
    raise ValueError(f"no retention policy is called {name!r}; there are {', '.join(POLICY_NAMES)}")
