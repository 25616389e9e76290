"""The metrics, exactly: what every store's answer is measured by.

A score is computed in float64 from the keys as stored, one record at a time and in an order of
additions that depends on the key's size alone. A matrix product would not do: it adds up in another
order at the edge of a block, so that two records with the same key could differ in the last bit, and
ties would no longer go to the lowest id.
"""

import math

import torch
from jaxtyping import Bool, Float64, Int, Shaped
from torch import Tensor

from mnemos.stores.base import Metric

_EPSILON = 2.0**-52
_BLOCK = 64  # queries searched at once

WORST: dict[Metric, float] = {
    "inner_product": -math.inf,
    "cosine": -math.inf,
    "euclidean": math.inf,
    "hamming": math.inf,
}


def exact_scores(
    metric: Metric, queries: Shaped[Tensor, "*#rows keys"], keys: Shaped[Tensor, "*#rows keys"]
) -> Float64[Tensor, "*rows"]:
    """The metric's own value for each query and key, leading axes broadcast.

    Args:
        queries: float, or uint8 (eight bits to a byte) for "hamming". The value of a float is taken as
            it is: float16 and bfloat16 lose nothing in float64.
        keys: as the queries, of any of their dtypes.

    Returns:
        Inner product; its cosine (0 where either is zero); Euclidean distance; number of bits that
        differ.
    """
    if metric == "hamming":
        return _sum(_bits_set(queries ^ keys).double())
    queries, keys = queries.double(), keys.double()
    if metric == "euclidean":
        return _sum((queries - keys).square()).sqrt()
    product = _sum(queries * keys)
    if metric == "inner_product":
        return product
    norms = _sum(queries.square()).sqrt() * _sum(keys.square()).sqrt()
    return torch.where(norms > 0, product / norms.where(norms > 0, 1.0), 0.0)


def nearest(
    metric: Metric,
    queries: Shaped[Tensor, "queries keys"],
    keys: Shaped[Tensor, "records keys"],
    ids: Int[Tensor, " records"],
    k: int,
) -> tuple[Int[Tensor, "queries found"], Float64[Tensor, "queries found"]]:
    """Ids and scores of the `k` best records of each query, or of all if there are fewer.

    Args:
        keys: in float64, or uint8 for bits.
        ids: ascending; ties go to the lowest.
    """
    k = min(k, len(ids))
    found = torch.zeros(len(queries), k, dtype=torch.int64)
    scores = torch.zeros(len(queries), k, dtype=torch.float64)
    everything = torch.arange(len(keys))
    for start in range(0, len(queries) if k else 0, _BLOCK):
        part = queries[start : start + _BLOCK]
        inside = None if metric == "hamming" else _inside(metric, part.double(), keys, k)
        for row, query in enumerate(part):
            candidates = everything if inside is None else inside[row].nonzero().squeeze(1)
            exact = exact_scores(metric, query, keys[candidates])
            order = exact.sort(descending=WORST[metric] < 0, stable=True).indices[:k]
            found[start + row], scores[start + row] = ids[candidates][order], exact[order]
    return found, scores


def _inside(
    metric: Metric,
    queries: Float64[Tensor, "queries keys"],
    keys: Float64[Tensor, "records keys"],
    k: int,
) -> Bool[Tensor, "queries records"]:
    """What can be among the `k` best, by a matrix product, whose order of additions is its own.

    Two orders of n additions differ by at most 2 n epsilon times the sum of the terms' sizes.
    """
    length, lengths = queries.norm(dim=1, keepdim=True), keys.norm(dim=1)
    scores, scale = queries @ keys.T, length * lengths.max()
    if metric == "cosine":
        scores, scale = scores / (length * lengths).clamp(min=1e-300), torch.ones_like(length)
    elif metric == "euclidean":
        scores = 2 * scores - length.square() - lengths.square()
        scale = (length + lengths.max()).square()
    slack = 8 * (queries.shape[1] + 8) * _EPSILON * scale
    return scores >= scores.topk(k, dim=1).values[:, -1:] - slack


def _sum(terms: Tensor) -> Tensor:
    """The sum over the last axis, by halves: elementwise, so it is the same for every record."""
    while (width := terms.shape[-1]) > 1:
        half = width // 2
        odd = terms[..., 2 * half :]  # the last one, if there is no partner for it
        terms = terms[..., :half] + terms[..., half : 2 * half]
        terms = torch.cat([terms, odd], dim=-1) if odd.shape[-1] else terms
    return terms.sum(dim=-1)


def _bits_set(packed: Tensor) -> Tensor:
    """Ones in every byte: neighbours are added in pairs, then fours, then eights."""
    packed = packed - ((packed >> 1) & 0x55)
    packed = (packed & 0x33) + ((packed >> 2) & 0x33)
    return (packed + (packed >> 4)) & 0x0F


def unpack_bits(packed: Shaped[Tensor, "records keys"]) -> Shaped[Tensor, "records bits"]:
    """Bits as zeros and ones, for policies that look at keys: their Euclidean distance is the root of
    the Hamming distance."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8)
    return ((packed.unsqueeze(-1) >> shifts) & 1).flatten(1)
