"""Exact search over blocks returns what brute force in float64 returns, whatever float32 makes of it."""

import numpy as np
import pytest
import torch

from mnemos.stores.exact import WORST, exact_scores
from mnemos.stores.search import Block, lengths_of, nearest

METRICS = ("inner_product", "cosine", "euclidean")


def by_blocks(keys, ids, queries, k, metric, scratch_bytes):
    """`nearest` over a plain array; the ids' order is not the rows'."""
    row_of = {int(id_): row for row, id_ in enumerate(ids) if id_ >= 0}
    lengths = lengths_of(keys) if metric != "hamming" else np.empty(0)

    def blocks(rows):
        for start in range(0, len(keys), rows):
            part = slice(start, start + rows)
            yield Block(keys[part], ids[part], lengths[part], np.flatnonzero(ids[part] < 0))

    def lookup(found):
        return keys[torch.tensor([row_of[int(id_)] for id_ in found], dtype=torch.int64)]

    return nearest(queries, blocks, lookup, k, metric, scratch_bytes)


def by_force(keys, ids, query, k, metric):
    present = ids >= 0
    scores = exact_scores(metric, query, keys[torch.from_numpy(present)]).numpy()
    order = np.lexsort((ids[present], scores if WORST[metric] > 0 else -scores))[:k]
    return ids[present][order], scores[order]


def check(keys, ids, queries, k, metric, scratch_bytes=1 << 14):
    found = by_blocks(keys, ids, queries, k, metric, scratch_bytes)
    for row, query in enumerate(queries):
        expected_ids, expected_scores = by_force(keys, ids, query, k, metric)
        count = len(expected_ids)
        assert found.ids[row, :count].tolist() == expected_ids.tolist()
        assert np.array_equal(found.scores[row, :count], expected_scores)
        assert (found.ids[row, count:] == -1).all()
        assert (found.scores[row, count:] == WORST[metric]).all()


def problem(rows, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(rows, 16, generator=generator) * scale
    queries = torch.randn(5, 16, generator=generator) * scale
    return keys, np.random.default_rng(seed).permutation(2 * rows)[:rows], queries


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rows", [1, 3, 700, 3001])
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25], ids=["plain", "overflowing", "underflowing"])
def test_equals_brute_force(metric, rows, scale):
    keys, ids, queries = problem(rows, scale=scale)
    check(keys, ids, queries, 10, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1.0, 1e19], ids=["plain", "overflowing"])
def test_more_equals_than_any_list_holds_go_to_the_lowest_ids(metric, scale):
    keys, ids, queries = problem(2000, seed=1, scale=scale)
    keys[::2] = keys[0].clone()
    queries[0] = keys[0]
    queries[1] = 0
    check(keys, ids, queries, 10, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_near_ties_below_float32_are_told_apart(metric):
    """Keys that differ in the last bit of one coordinate, which a float32 sum of 16 loses."""
    keys, ids, queries = problem(1500, seed=2)
    keys[:] = keys[0].clone()
    bits = keys[:, 3].view(torch.int32)
    bits += torch.arange(1500, dtype=torch.int32) % 7
    check(keys, ids, queries, 20, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_hidden_rows_are_not_found(metric):
    keys, ids, queries = problem(1000, seed=3)
    ids = np.where(np.random.default_rng(0).random(1000) < 0.4, -1, ids)
    check(keys, ids, queries, 10, metric)
    check(keys, np.where(ids == ids.max(), ids, -1), queries, 10, metric)
    check(keys, np.full(1000, -1), queries, 3, metric)


@pytest.mark.parametrize("width", [1, 3, 8, 16])
def test_bits(width):
    """Distances are few, so nearly everything is a tie."""
    generator = torch.Generator().manual_seed(4)
    keys = torch.randint(0, 256, (1200, width), generator=generator, dtype=torch.uint8)
    queries = torch.randint(0, 256, (4, width), generator=generator, dtype=torch.uint8)
    ids = np.random.default_rng(4).permutation(5000)[:1200]
    ids[::3] = -1
    check(keys, ids, queries, 15, "hamming")


def test_not_disturbed_by_torch_being_told_to_round():
    keys, ids, queries = problem(3000, seed=5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        check(keys, ids, queries, 10, "inner_product")
    finally:
        torch.set_float32_matmul_precision(before)
