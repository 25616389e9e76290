"""Exact nearest neighbours over blocks of keys, in bounded memory.

Float keys are scanned by float32 matrix products, which round; a bound on that rounding decides which
rows could be among the nearest, and those are scored again in float64. So every store returns the same
rows whatever its blocks, and equal scores are told apart by the lowest id.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor

from mnemos.stores.base import Metric
from mnemos.stores.exact import WORST, exact_scores

SPARE = 8  # rows taken beyond k, so that a few near ties at the edge need no second scan
GROUP = 64  # scores whose maximum is looked at first
QUERIES = 256  # searched together: more would make blocks so short that choosing among them dominates
ROUNDING = 2.0**-24  # of float32
TINIEST = 2.0**-126  # below this float32 products may be flushed to zero


class Block(NamedTuple):
    """Some rows of a store."""

    keys: Shaped[Tensor, "rows keys"]
    ids: Int[np.ndarray, " rows"]
    lengths: Float[np.ndarray, " rows"]  # Euclidean lengths of float keys; empty for bits
    hidden: Int[np.ndarray, " hidden"]  # rows that are not to be found, ascending


Blocks = Callable[[int], Iterator[Block]]  # most rows a block may have -> the blocks, anew at every call


class Nearest(NamedTuple):
    """Best first; -1 and the metric's worst score where fewer were found."""

    ids: Int[np.ndarray, "queries found"]
    scores: Float[np.ndarray, "queries found"]  # float64


def lengths_of(keys: Float[Tensor, "rows keys"]) -> NDArray[np.float64]:
    """Euclidean lengths as float32 sums give them; in float64 where those would over- or underflow."""
    vectors = keys.to(torch.float32).numpy()
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    lengths = np.sqrt(squares.astype(np.float64))
    unsafe = ~((squares > 1e-30) & (squares < 1e30))
    if unsafe.any():
        lengths[unsafe] = np.linalg.norm(vectors[unsafe].astype(np.float64), axis=1)
    return lengths


def nearest(
    queries: Shaped[Tensor, "queries keys"],
    blocks: Blocks,
    lookup: Callable[[Int[np.ndarray, " found"]], Tensor],
    k: int,
    metric: Metric,
    scratch_bytes: int = 1 << 26,
    also: Sequence[NDArray[np.int64]] | None = None,
) -> Nearest:
    """The `k` nearest rows of every query.

    Args:
        queries: float for float keys, uint8 for bits.
        blocks: gives the rows to search, in blocks of at most so many rows; called again if near ties
            ask for a second scan.
        lookup: keys by id, for scoring the candidates again.
        scratch_bytes: bounds the scores and the copies of keys held at once.
        also: for every query, ids outside the blocks that are candidates too (not for bits).
    """
    together = len(queries) if metric == "hamming" else min(len(queries), QUERIES)
    # A row takes a score for every query, twice at times, and a copy of its key in float32.
    rows = max(GROUP, min(1 << 17, scratch_bytes // (8 * together + 4 * queries.shape[1])))
    if not len(queries):
        return Nearest(np.empty((0, k), np.int64), np.empty((0, k)))
    if metric == "hamming":
        return _nearest_bits(queries, blocks(rows), k)
    parts = []
    for begin in range(0, len(queries), QUERIES):
        some = queries[begin : begin + QUERIES]
        found = _scan(some.to(torch.float32).contiguous().numpy(), blocks, rows, k, metric)
        if also is not None:
            found = [np.concatenate(pair) for pair in zip(found, also[begin:], strict=False)]
        parts.append(_rescore(some.to(torch.float64), found, lookup, k, metric))
    return Nearest(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _scan(
    queries: Float32[np.ndarray, "queries keys"], blocks: Blocks, rows: int, k: int, metric: Metric
) -> list[NDArray[np.int64]]:
    """For every query the ids that can be among its k nearest, rounding considered."""
    scores, ids = [], []
    last = np.full(len(queries), -np.inf, np.float32)
    shortest, longest = np.inf, 0.0
    for some in _together(blocks(rows), rows):
        top, position = _top(_joined([_scores(queries, block, metric) for block in some]), k + SPARE)
        scores.append(top)
        ids.append(_ids_at(position, some))
        if top.shape[1] < sum(len(block.ids) for block in some):  # else nothing can have been left out
            last = np.maximum(last, top.min(axis=1))
        for block in some:
            longest = max(longest, float(block.lengths.max(initial=0.0)))
            if metric == "cosine":
                shortest = min(shortest, float(block.lengths[block.lengths > 0].min(initial=np.inf)))
    if not scores:
        return [np.empty(0, np.int64)] * len(queries)
    merged, found = np.concatenate(scores, axis=1), np.concatenate(ids, axis=1)
    edge = _edge(merged, _rounding(queries, shortest, longest, metric), k)
    # A list whose last entry lies inside the edge may have left out its equals: near ties, or numbers
    # too large for float32. Such a query is scanned again, and every row inside is kept.
    again = ~(last < edge) & ~np.isneginf(last)
    rescanned = _rescan(queries, blocks, rows, metric, edge, again)
    inside = ~(merged < edge[:, None]) & (found >= 0)  # so that NaN is inside
    return [rescanned.get(query, found[query, inside[query]]) for query in range(len(queries))]


def _together(blocks: Iterator[Block], rows: int) -> Iterator[list[Block]]:
    """Blocks in groups of at most so many rows: to choose from a short block takes as long as from a long."""
    group: list[Block] = []
    for block in blocks:
        if group and sum(len(one.ids) for one in group) + len(block.ids) > rows:
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _ids_at(
    position: Int[np.ndarray, "queries found"], blocks: list[Block]
) -> Int[np.ndarray, "queries found"]:
    """The ids at positions in the blocks side by side, -1 for rows that are hidden."""
    ids = _joined([block.ids for block in blocks])[position]
    start = 0
    for block in blocks:
        if len(block.hidden):
            place = np.searchsorted(block.hidden, position - start).clip(max=len(block.hidden) - 1)
            ids[block.hidden[place] == position - start] = -1
        start += len(block.ids)
    return ids


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Side by side along the last axis; one part alone is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _edge(
    merged: Float32[np.ndarray, "queries found"], slack: Float32[np.ndarray, " queries"], k: int
) -> Float32[np.ndarray, " queries"]:
    """The float32 score below which no row can be among the k nearest; minus infinity if unknown."""
    if merged.shape[1] < k:
        return np.full_like(slack, -np.inf)
    overflown = (np.isnan(merged) | np.isposinf(merged)).any(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        edge = np.partition(merged, -k, axis=1)[:, -k] - 2 * slack
    return np.where(overflown | ~np.isfinite(edge), np.float32(-np.inf), edge)


def _rescan(
    queries: Float32[np.ndarray, "queries keys"],
    blocks: Blocks,
    rows: int,
    metric: Metric,
    edge: Float32[np.ndarray, " queries"],
    again: Bool[np.ndarray, " queries"],
) -> dict[int, NDArray[np.int64]]:
    """Every id inside the edge, for the queries that a list of fixed length could not serve."""
    chosen = np.flatnonzero(again)
    if not len(chosen):
        return {}
    inside: dict[int, list[NDArray[np.int64]]] = {query: [] for query in chosen.tolist()}
    for block in blocks(rows):
        fitting = ~(_scores(queries[chosen], block, metric) < edge[chosen, None])
        fitting[:, block.hidden] = False
        for query, fits in zip(inside, fitting, strict=True):
            inside[query].append(block.ids[fits])
    return {query: np.concatenate(parts) for query, parts in inside.items()}


def _scores(
    queries: Float32[np.ndarray, "queries keys"], block: Block, metric: Metric
) -> Float32[np.ndarray, "queries rows"]:
    """In float32, the more the nearer: the inner product, or what orders as the metric does."""
    # NumPy's product: torch's can be told, elsewhere in the program, to round to bfloat16.
    keys = block.keys.to(torch.float32).numpy()
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        products = queries @ keys.T
        if metric == "cosine":
            lengths = block.lengths
            products *= np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(
                np.float32
            )
        elif metric == "euclidean":  # |q - k|² = |q|² - 2 (q·k - |k|²/2)
            products -= (block.lengths**2 / 2).astype(np.float32)
    products[:, block.hidden] = -np.inf
    return products


def _rounding(
    queries: Float32[np.ndarray, "queries keys"], shortest: float, longest: float, metric: Metric
) -> Float32[np.ndarray, " queries"]:
    """How far `_scores` can be from the truth: the bound of any summation order, lengths, and underflow.

    Args:
        shortest: length of the shortest key but zero (for cosine); and `longest`, of the longest.
    """
    size = queries.shape[1] + 8
    query = np.linalg.norm(queries.astype(np.float64), axis=1)
    if metric == "cosine":
        bound = 2 * ROUNDING * size * query + TINIEST * size * (1 + 1 / shortest)
    else:
        bound = ROUNDING * size * (query * longest) + TINIEST * size
        if metric == "euclidean":
            bound = bound + ROUNDING * size * longest**2
    with np.errstate(over="ignore"):
        return (bound * (1 + 2**-20)).astype(np.float32)


def _top(
    scores: Float32[np.ndarray, "queries rows"], take: int
) -> tuple[Float32[np.ndarray, "queries found"], Int[np.ndarray, "queries found"]]:
    """The best of each query and where, in no order: they lie in the groups with the best maxima."""
    queries, rows = scores.shape
    groups = rows // GROUP
    if groups < 4 * take:
        position = _largest(scores, take)
        return scores[np.arange(queries)[:, None], position], position
    head = scores[:, : groups * GROUP].reshape(queries, groups, GROUP)
    maxima = torch.from_numpy(head).amax(dim=2).numpy()  # NumPy's takes ten times as long
    chosen = _largest(maxima, take)
    members = (chosen[:, :, None] * GROUP + np.arange(GROUP)).reshape(queries, -1)
    tail = np.broadcast_to(np.arange(groups * GROUP, rows), (queries, rows - groups * GROUP))
    candidates = np.concatenate([members, tail], axis=1)
    each = np.arange(queries)[:, None]
    values = scores[each, candidates]
    best = _largest(values, take)
    return values[each, best], candidates[each, best]


def _largest(scores: Float32[np.ndarray, "queries rows"], take: int) -> Int[np.ndarray, "queries found"]:
    """Where the largest are; NaN counts as larger than any."""
    take = min(take, scores.shape[1])
    return np.argpartition(scores, -take, axis=1)[:, -take:]


def _rescore(
    queries: Float[Tensor, "queries keys"],
    found: Sequence[NDArray[np.int64]],
    lookup: Callable[[NDArray[np.int64]], Tensor],
    k: int,
    metric: Metric,
    pairs: int = 1 << 16,
) -> Nearest:
    """Scores the candidates in float64, so many pairs at a time, and keeps the best k of each query."""
    sign = 1.0 if WORST[metric] > 0 else -1.0  # so that less is better
    owner = np.repeat(np.arange(len(found)), [len(candidates) for candidates in found])
    ids = np.concatenate([*found, np.empty(0, np.int64)])
    parts = [
        exact_scores(metric, queries[owner[part]], lookup(ids[part])).numpy()
        for part in (slice(start, start + pairs) for start in range(0, len(ids), pairs))
    ]
    scores = np.concatenate([*parts, np.empty(0)])
    order = np.lexsort((ids, sign * scores, owner))
    owner, ids, scores = owner[order], ids[order], scores[order]
    rank = np.arange(len(ids)) - np.searchsorted(owner, owner)
    kept = rank < k
    best = Nearest(np.full((len(found), k), -1, np.int64), np.full((len(found), k), WORST[metric]))
    best.ids[owner[kept], rank[kept]] = ids[kept]
    best.scores[owner[kept], rank[kept]] = scores[kept]
    return best


def hamming_distances(
    query: UInt8[np.ndarray, " keys"], keys: UInt8[np.ndarray, "rows keys"]
) -> Int[np.ndarray, " rows"]:
    """How many bits differ."""
    if keys.shape[1] % 8 == 0 and keys.flags.c_contiguous:
        keys, query = keys.view(np.uint64), np.ascontiguousarray(query).view(np.uint64)
    return np.bitwise_count(keys ^ query).sum(axis=1, dtype=np.int64)


def _nearest_bits(queries: UInt8[Tensor, "queries keys"], blocks: Iterator[Block], k: int) -> Nearest:
    """Distances are small integers, so ties are the rule: distance and id are ordered as one number."""
    width = 1 << 44  # more than any id
    best = np.empty((len(queries), 0), np.int64)
    for block in blocks:
        keys = block.keys.numpy()
        ranked = np.stack([hamming_distances(query, keys) for query in queries.numpy()]) * width + block.ids
        ranked = np.delete(ranked, block.hidden, axis=1)
        if ranked.shape[1] > k:
            ranked = np.partition(ranked, k - 1, axis=1)[:, :k]
        best = np.concatenate([best, ranked], axis=1)
    best = np.sort(best, axis=1)[:, :k]
    ids = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), np.inf)
    ids[:, : best.shape[1]] = best % width
    scores[:, : best.shape[1]] = best // width
    return Nearest(ids, scores)
