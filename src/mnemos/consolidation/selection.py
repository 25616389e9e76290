"""Which experiences are replayed: a selection gives every one a weight, and they are drawn in proportion."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor


class Traces(NamedTuple):
    """What is known of the experiences in a fast store."""

    ids: Int64[Tensor, " experiences"]  # in order of writing
    groups: Int64[Tensor, " experiences"]  # the class of each; -1 where targets are no classes
    strength: Float64[Tensor, " experiences"]  # as the writer gave it
    keys: Float[Tensor, "experiences keys"]  # of width 0 unless the selection reads them


Weigh = Callable[[Traces], Float64[Tensor, " experiences"]]


@dataclass(frozen=True)
class Selection:
    """How experiences are drawn for replay.

    Args:
        name: how people call it, parameters included.
        weigh: what is known of every experience to its weight, 0 or more; None is the same for all.
        reads_keys: whether it looks at the keys, which costs reading them all once after every change.
    """

    name: str
    weigh: Weigh | None = None
    reads_keys: bool = False


def uniform() -> Selection:
    """Every experience as often as every other."""
    return Selection("uniform")


def balanced() -> Selection:
    """Every class as often as every other, and within a class every experience."""
    return Selection("balanced", _balanced)


def _balanced(traces: Traces) -> Tensor:
    _, group, counts = traces.groups.unique(return_inverse=True, return_counts=True)
    return 1 / counts[group].double()


def by_strength(exponent: float = 1.0) -> Selection:
    """In proportion to strength^exponent: to how surprising each was when it was written, for instance."""
    if not exponent >= 0:
        raise ValueError(f"exponent must be 0 or more, not {exponent}")
    return Selection(f"by_strength({exponent})", partial(_by_strength, exponent=exponent))


def _by_strength(traces: Traces, exponent: float) -> Tensor:
    return traces.strength.clamp(min=0) ** exponent


def recent(half_life: float) -> Selection:
    """Halved with every `half_life` experiences that were written later."""
    if not half_life > 0:
        raise ValueError(f"half_life must be above 0, not {half_life}")
    return Selection(f"recent({half_life})", partial(_recent, half_life=half_life))


def _recent(traces: Traces, half_life: float) -> Tensor:
    age = len(traces.ids) - 1 - traces.ids.argsort().argsort()
    return 2 ** (-age.double() / half_life)


def similar_to(keys: Float[Tensor, "new keys"], sharpness: float = 10.0) -> Selection:
    """What resembles new experiences most: it is what they would overwrite, so it alone need be interleaved.

    Saxena, Shobe & McNaughton 2022, "Learning in deep neural networks and brains with similarity-weighted
    interleaved learning". The weight is exp(sharpness · s), s the cosine with the mean of the class of new
    keys.

    Args:
        sharpness: 0 is uniform.
    """
    if not len(keys):
        raise ValueError("keys must hold at least one new experience")
    mean = torch.nn.functional.normalize(keys.detach().double().mean(0), dim=0)
    return Selection(f"similar_to({sharpness})", partial(_similar, mean=mean, sharpness=sharpness), True)


def _similar(traces: Traces, mean: Tensor, sharpness: float) -> Tensor:
    cosine = torch.nn.functional.normalize(traces.keys.double(), dim=1) @ mean
    return (sharpness * (cosine - cosine.max())).exp() if len(cosine) else cosine


def interleaved(old: Selection, new: Selection, share: float = 0.5, *, since: int) -> Selection:
    """Old and new side by side: a share of what is drawn is older than the experience `since`, the rest is
    not.

    Args:
        old: how the older are drawn among themselves; new: the others.
        share: of the older, 0 to 1; where there are none of one kind, all are of the other.
        since: the id from which on an experience is new.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be 0 to 1, not {share}")
    name = f"interleaved({old.name}, {new.name}, {share}, {since})"
    weigh = partial(_interleaved, old=old, new=new, share=share, since=since)
    return Selection(name, weigh, old.reads_keys or new.reads_keys)


def _interleaved(traces: Traces, old: Selection, new: Selection, share: float, since: int) -> Tensor:
    weights = torch.zeros(len(traces.ids), dtype=torch.float64)
    for chosen, selection, part in ((traces.ids < since, old, share), (traces.ids >= since, new, 1 - share)):
        inside = weights_of(selection, Traces(*(field[chosen] for field in traces)))
        weights[chosen] = inside * (part / inside.sum().clamp(min=torch.finfo(torch.float64).tiny))
    if not weights.sum() > 0:  # all that there is has the share 0
        return torch.ones_like(weights)
    return weights


def weights_of(selection: Selection, traces: Traces) -> Float64[Tensor, " experiences"]:
    """The weight of every experience.

    Raises:
        ValueError: a weight below 0, or none above it.
    """
    if selection.weigh is None:
        return torch.ones(len(traces.ids), dtype=torch.float64)
    weights = selection.weigh(traces).double()
    if len(weights) and not (weights.isfinite().all() and weights.min() >= 0):
        raise ValueError(f"{selection.name} gave weights that are negative, infinite or no numbers")
    return weights


def drawn(
    cumulative: Float64[Tensor, " experiences"], rows: int, generator: torch.Generator
) -> Int[Tensor, " rows"]:
    """Positions in proportion to weights, with replacement.

    Args:
        cumulative: sums of the weights up to and with each, the last above 0.
    """
    return found(cumulative, torch.rand(rows, dtype=torch.float64, generator=generator))


def found(
    cumulative: Float64[Tensor, " experiences"], fractions: Float64[Tensor, " rows"]
) -> Int[Tensor, " rows"]:
    """Positions where fractions, 0 to 1, of the whole weight lie."""
    # To the right of equal sums: what has no weight is never drawn, nor anything past the end by rounding.
    last = torch.searchsorted(cumulative, cumulative[-1:])
    return torch.searchsorted(cumulative, fractions * cumulative[-1], right=True).minimum(last)
