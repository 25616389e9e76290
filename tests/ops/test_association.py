"""Hebb's sum and the recursive pseudo-inverse, against what they must equal."""

import pytest
import torch

from mnemos.ops.association import SHORTEST, hebbian, pseudo_inverse_step


def written(keys, values):
    """Writes rows of keys (batch, pairs, keys) one after the other: W, I - K K⁺ and (K Kᵀ)⁺."""
    batch, _, size = keys.shape
    parts = (
        keys.new_zeros(batch, values.shape[2], size),
        torch.eye(size, dtype=keys.dtype).expand(batch, size, size),
        keys.new_zeros(batch, size, size),
    )
    for key, value in zip(keys.unbind(1), values.unbind(1), strict=True):
        parts = pseudo_inverse_step(*parts, key, value)
    return parts


def random_pairs(pairs, size=8, batch=3):
    generator = torch.Generator().manual_seed(pairs)
    keys = torch.randn(batch, pairs, size, generator=generator, dtype=torch.float64)
    values = torch.randn(batch, pairs, 5, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(keys, dim=2), values


@pytest.mark.parametrize("pairs", [1, 5, 8, 9, 30])
def test_the_recursion_keeps_the_pseudo_inverse(pairs):
    keys, values = random_pairs(pairs)
    weights, complement, inverse = written(keys, values)
    span = keys.mT @ torch.linalg.pinv(keys.mT)
    torch.testing.assert_close(weights, values.mT @ torch.linalg.pinv(keys.mT))
    torch.testing.assert_close(complement, torch.eye(8, dtype=torch.float64) - span)
    torch.testing.assert_close(inverse, torch.linalg.pinv(keys.mT @ keys, hermitian=True))


def test_keys_of_low_rank_have_the_solution_of_least_norm():
    keys, values = random_pairs(12)
    keys = keys * torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0])
    weights, *_ = written(keys, values)
    torch.testing.assert_close(weights, values.mT @ torch.linalg.pinv(keys.mT))


def test_a_new_key_changes_no_other_answer():
    keys, values = random_pairs(7)
    before, after = written(keys[:, :6], values[:, :6])[0], written(keys, values)[0]
    torch.testing.assert_close(after @ keys[:, :6].mT, before @ keys[:, :6].mT)


def test_a_key_that_comes_again_answers_the_mean():
    keys, values = random_pairs(4)
    weights, *_ = written(keys[:, [0, 1, 2, 1, 1]], torch.cat([values, values[:, :1] + 7], dim=1))
    expected = (values[:, 1] + values[:, 3] + values[:, 0] + 7) / 3
    torch.testing.assert_close((weights @ keys[:, 1:2].mT).squeeze(2), expected)


def test_rounding_of_a_key_is_not_a_new_direction():
    keys, values = random_pairs(3)
    almost = keys[:, :1] + 0.1 * SHORTEST * torch.randn(keys[:, :1].shape, dtype=torch.float64)
    weights, *_ = written(torch.cat([keys, almost], dim=1), torch.cat([values, 2 * values[:, :1]], dim=1))
    assert weights.abs().max() < 50
    torch.testing.assert_close((weights @ keys[:, :1].mT).squeeze(2), 1.5 * values[:, 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("time", "chunk_size"), [(1, 1), (13, 4), (64, 64), (65, 64)])
def test_hebbian_sums_what_came_before_in_the_document(time, chunk_size):
    queries, keys = torch.randn(2, 2, time, 6).unbind(0)
    values, strengths, start = torch.randn(2, time, 3), torch.rand(2, time), torch.randn(2, 3, 6)
    reset = torch.rand(2, time) < 0.1
    document = reset.cumsum(1)
    read, weights = hebbian(queries, keys, values, strengths, start, reset, chunk_size=chunk_size)
    earlier = (document[:, :, None] == document[:, None, :]).tril(-1)
    expected = torch.einsum("btk,bjk,bj,bjw,btj->btw", queries, keys, strengths, values, earlier.float())
    expected += torch.einsum("bwk,btk,bt->btw", start, queries, (document == 0).float())
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4)
    last = (document == document[:, -1:]).float()
    expected = torch.einsum("bj,bj,bjw,bjk->bwk", last, strengths, values, keys)
    expected += start * (document[:, -1] == 0)[:, None, None]
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-4)
