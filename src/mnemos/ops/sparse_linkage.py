"""In which order slots were written, of every slot only the few strongest links.

Rae et al. 2016, "Scaling Memory-Augmented Neural Networks with Sparse Reads and Writes", supplement D. The
links of a DNC, a matrix of slots by slots, become two sparse ones of which each row keeps its K_L greatest:
N, whose row lists what was written before a slot, and P, whose row lists what was written after it. Nothing
here has a gradient but the weights of the reads that follow the links.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Put = Callable[[Tensor, int, Tensor, Tensor], Tensor]
UNIT = 2**30
STEPS = 256  # to which links know how much was written: so they have no derivative that would be left out


class SparseLinks(NamedTuple):
    """Numbers of slots, and in 2^-30 how strong each link is, from 0, which is none, to 1.

    Whole numbers, since nothing of the links has a gradient.
    """

    earlier_slots: Int[Tensor, "batch slots links"]  # N_t, row by row: what was written before
    earlier_weights: Int[Tensor, "batch slots links"]
    later_slots: Int[Tensor, "batch slots links"]  # P_t: what was written after
    later_weights: Int[Tensor, "batch slots links"]
    last_slots: Int[Tensor, "batch links"]  # p_t, the precedence: what was written last
    last_weights: Int[Tensor, "batch links"]


def merged(
    slots: Int[Tensor, "*rows some"], weights: Float[Tensor, "*rows some"], count: int
) -> tuple[Int[Tensor, "*rows count"], Float[Tensor, "*rows count"], Int[Tensor, "*rows count"]]:
    """The `count` slots of the greatest weight, of all places where a slot stands together.

    Returns:
        The slots, their weights, and for each a place where it stands and has some weight of its own.
    """
    named = slots.masked_fill(weights == 0, -1)
    same = named.unsqueeze(-1) == named.unsqueeze(-2)
    total = (same * weights.unsqueeze(-2)).sum(-1)
    repeated = same.tril(-1).any(-1)
    weights, places = total.masked_fill(repeated, 0).topk(count, dim=-1)
    return slots.gather(-1, places).masked_fill(weights == 0, 0), weights, places


def links_after(
    links: SparseLinks, slots: Int[Tensor, "batch written"], weights: Float[Tensor, "batch written"]
) -> SparseLinks:
    """The links after a step that wrote to `slots`, of which one may stand there several times.

        N_t[i, j] = (1 - w_i) N[i, j] + w_i p_j,  P_t[i, j] = (1 - w_j) P[i, j] + w_j p_i,
        and then  p_t = (1 - Σ w) p + w

    with no link from a slot to itself, and each row cut to its greatest. Weights that sum to more than 1, of
    several heads, are scaled to 1: what a step writes is one event.
    """
    return _linked(links, slots, weights, None, torch.scatter)


def link_(
    links: SparseLinks,
    slots: Int[Tensor, "batch written"],
    weights: Float[Tensor, "batch written"],
    known: Bool[Tensor, " batch"] | None = None,
) -> SparseLinks:
    """The same within the given tensors of all slots; rows that are not known stay as they are."""
    return _linked(links, slots, weights, known, Tensor.scatter_)


@torch.no_grad()
def _linked(
    links: SparseLinks,
    slots: Tensor,
    weights: Tensor,
    known: Tensor | None,
    put: Put,
) -> SparseLinks:
    count = links.last_slots.shape[1]
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
    slots, weights, _ = merged(slots, weights, slots.shape[1])
    weights = (weights * STEPS).round() / STEPS
    last = links.last_weights.to(weights.dtype) / UNIT
    # N: the rows of what is written. No slot stands there twice but the first, where there are fewer.
    before, strength = _rows(links.earlier_slots, slots), _strength(links.earlier_weights, slots, weights)
    written = ((slots.unsqueeze(2) == slots.unsqueeze(1)) * weights.unsqueeze(1)).sum(2, keepdim=True)
    found = torch.cat([before, links.last_slots.unsqueeze(1).expand_as(before)], dim=2)
    found_weights = torch.cat([(1 - written) * strength, written * last.unsqueeze(1)], dim=2)
    earlier = _cut(slots, found, found_weights, count)
    # P: the rows of what was written last, and of all from which a link leads to what is written.
    sources = torch.cat([links.last_slots, before.flatten(1)], dim=1)
    after, strength = _rows(links.later_slots, sources), _strength(links.later_weights, sources, weights)
    for_each = (after.unsqueeze(3) == slots.view(len(slots), 1, 1, -1)) * weights.view(len(slots), 1, 1, -1)
    decayed = (1 - for_each.sum(3)) * strength
    twice = links.last_slots.unsqueeze(2) == links.last_slots.unsqueeze(1)
    added = (twice * last.unsqueeze(1)).sum(2, keepdim=True) * weights.unsqueeze(1)
    found = torch.cat([after[:, :count], slots.unsqueeze(1).expand(-1, count, -1)], dim=2)
    later = _cut(links.last_slots, found, torch.cat([decayed[:, :count], added], dim=2), count)
    # p
    found = torch.cat([links.last_slots, slots], dim=1)
    kept = (1 - weights.sum(1, keepdim=True)).clamp_min(0) * last
    last_slots, last_weights, _ = merged(found, torch.cat([kept, weights], dim=1), count)
    precedence = [last_slots, _whole(last_weights)]
    if known is not None:
        pairs = zip(precedence, links[4:], strict=True)
        precedence = [torch.where(known.unsqueeze(1), new, old) for new, old in pairs]

    decayed_weights = _changed(put, links.later_weights, sources, _whole(decayed), known)
    return SparseLinks(
        _changed(put, links.earlier_slots, slots, earlier[0], known),
        _changed(put, links.earlier_weights, slots, earlier[1], known),
        _changed(put, links.later_slots, links.last_slots, later[0], known),
        _changed(put, decayed_weights, links.last_slots, later[1], known),
        *precedence,
    )


def _changed(put: Put, table: Tensor, rows: Tensor, new: Tensor, known: Tensor | None) -> Tensor:
    if known is not None:
        new = torch.where(known.view(-1, 1, 1), new, _rows(table, rows))
    return put(table, 1, rows.unsqueeze(2).expand_as(new), new)


def followed(
    slots: Int[Tensor, "batch slots links"],
    weights: Int[Tensor, "batch slots links"],
    read_slots: Int[Tensor, "batch heads found"],
    read_weights: Float[Tensor, "batch heads found"],
) -> tuple[Int[Tensor, "batch heads found"], Float[Tensor, "batch heads found"]]:
    """From where each head read last along the links: f of P's rows, and b of N's; the greatest of them.

    The links have no gradient, the weights of the reads do.
    """
    shape = (*read_slots.shape, -1)
    there = _rows(slots, read_slots.flatten(1)).view(shape)
    strength = _strength(weights, read_slots.flatten(1), read_weights).view(shape)
    along = (strength * read_weights.unsqueeze(3)).flatten(2)
    return merged(there.flatten(2), along, read_slots.shape[2])[:2]


def _rows(table: Tensor, slots: Tensor) -> Tensor:
    """The rows of some slots (batch, some, links) of a table (batch, slots, links)."""
    return table.gather(1, slots.unsqueeze(2).expand(-1, -1, table.shape[2]))


def _cut(owners: Tensor, slots: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows with their greatest links alone, none of them to the row's own slot."""
    slots, weights, _ = merged(slots, weights.masked_fill(slots == owners.unsqueeze(2), 0), count)
    return slots, _whole(weights)


def _strength(weights: Tensor, slots: Tensor, like: Tensor) -> Tensor:
    return _rows(weights, slots).to(like.dtype) / UNIT


def _whole(weights: Tensor) -> Tensor:
    return (weights * UNIT).round().to(torch.int32)
