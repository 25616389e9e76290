"""The metrics against their definitions, and the search against sorting everything."""

from fractions import Fraction

import pytest
import torch

from mnemos.stores.exact import exact_scores, nearest, unpack_bits

FLOAT_METRICS = ("inner_product", "cosine", "euclidean")


def test_scores_by_rational_arithmetic():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(5, 7, generator=generator)
    query = torch.randn(7, generator=generator)
    for key, product, distance in zip(
        keys,
        exact_scores("inner_product", query, keys),
        exact_scores("euclidean", query, keys),
        strict=True,
    ):
        terms = [(Fraction(a), Fraction(b)) for a, b in zip(query.tolist(), key.tolist(), strict=True)]
        assert float(product) == pytest.approx(float(sum(a * b for a, b in terms)), rel=1e-14, abs=1e-15)
        assert float(distance) ** 2 == pytest.approx(float(sum((a - b) ** 2 for a, b in terms)), rel=1e-14)


def test_cosine_of_a_zero_vector_is_zero():
    keys = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert exact_scores("cosine", torch.tensor([3.0, 4.0]), keys).tolist() == [0, 1]
    assert exact_scores("cosine", torch.zeros(2), keys).tolist() == [0, 0]


def test_hamming_counts_every_bit():
    keys = torch.arange(256, dtype=torch.uint8).unsqueeze(1)
    expected = [bin(byte ^ 0b10110001).count("1") for byte in range(256)]
    assert exact_scores("hamming", torch.tensor([0b10110001], dtype=torch.uint8), keys).tolist() == expected


def test_unpacked_bits_are_the_most_significant_first():
    assert unpack_bits(torch.tensor([[0b10000001, 0b01000000]], dtype=torch.uint8)).tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]
    ]


@pytest.mark.parametrize("metric", FLOAT_METRICS)
@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 100])
def test_a_score_does_not_depend_on_what_stands_beside_it(metric, width):
    generator = torch.Generator().manual_seed(width)
    keys = torch.randn(37, width, generator=generator)
    query = torch.randn(width, generator=generator)
    together = exact_scores(metric, query, keys)
    alone = torch.stack([exact_scores(metric, query, key) for key in keys])
    turned = exact_scores(metric, query, keys.T.contiguous().T)
    assert torch.equal(together, alone)
    assert torch.equal(together, turned)


@pytest.mark.parametrize("metric", FLOAT_METRICS)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_search_is_a_sort_of_everything(metric, offset):
    generator = torch.Generator().manual_seed(0)
    keys = (torch.randn(200, 9, generator=generator) + offset).repeat(2, 1).double()
    queries = torch.randn(70, 9, generator=generator) + offset
    ids = torch.arange(400) * 3
    found, scores = nearest(metric, queries, keys, ids, 11)
    exact = torch.stack([exact_scores(metric, query, keys) for query in queries])
    order = exact.sort(dim=1, descending=metric != "euclidean", stable=True).indices[:, :11]
    assert torch.equal(found, ids[order])
    assert torch.equal(scores, exact.gather(1, order))


def test_a_search_finds_no_more_than_there_is():
    found, scores = nearest(
        "inner_product", torch.ones(2, 3), torch.empty(0, 3).double(), torch.empty(0).long(), 5
    )
    assert found.shape == scores.shape == (2, 0)
    found, _ = nearest("inner_product", torch.empty(0, 3), torch.ones(4, 3).double(), torch.arange(4), 5)
    assert found.shape == (0, 4)
