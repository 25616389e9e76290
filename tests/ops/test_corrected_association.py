"""An association that answers by a mean: its equations, and where they become the delta rule's."""

import pytest
import torch
from torch import Tensor

from mnemos.ops.corrected_association import LEAST_MATCH, Association, corrected, recalled
from mnemos.ops.delta_rule import delta_rule_loop, unit


def empty(rows: int = 2, width: int = 3, keys: int = 5) -> Association:
    return Association(torch.zeros(rows, width, keys), torch.zeros(rows, keys))


def features(*shape: int) -> Tensor:
    return unit(torch.rand(*shape))


def test_the_equations_pair_by_pair() -> None:
    torch.manual_seed(0)
    known = Association(torch.randn(1, 3, 5), torch.rand(1, 5))
    keys, values, strength = features(1, 4, 5), torch.randn(1, 4, 3), torch.rand(1, 4, 1)
    matrix, total = known.matrix[0].clone(), known.total[0].clone()
    for key, value, beta in zip(keys[0], values[0], strength[0], strict=True):
        before = known.matrix[0] @ key / (known.total[0] @ key)
        matrix += beta * torch.outer(value - before, key)
        total += (1 - known.total[0] @ key / key.square().sum()).clamp(0, 1) * key
    after = corrected(known, keys, values, strength)
    torch.testing.assert_close(after.matrix[0], matrix)
    torch.testing.assert_close(after.total[0], total)
    query = features(1, 1, 5)
    torch.testing.assert_close(recalled(after, query)[0, 0], matrix @ query[0, 0] / (total @ query[0, 0]))


def test_one_pair_at_a_time_with_orthonormal_keys_is_the_delta_rule() -> None:
    torch.manual_seed(0)
    order = torch.tensor([0, 3, 1, 0, 3, 3, 2])  # keys that come again
    keys = torch.eye(5)[order].expand(2, -1, -1)
    values, strength = torch.randn(2, len(order), 3), torch.rand(2, len(order), 1)
    known = empty()
    for step in range(len(order)):
        known = corrected(known, *(x[:, step : step + 1] for x in (keys, values, strength)))
    written, erased = (x.unsqueeze(2) for x in (strength * values, strength * keys))
    heads = keys.unsqueeze(2)
    _, weights = delta_rule_loop(heads, heads, written, erased, torch.zeros(2, 1, 3, 5))
    torch.testing.assert_close(known.matrix, weights[:, 0])
    queries = torch.eye(5)[:4].expand(2, -1, -1)
    torch.testing.assert_close(recalled(known, queries), queries @ weights[:, 0].mT)


def test_a_key_that_comes_again_is_overwritten() -> None:
    torch.manual_seed(0)
    keys, values, full = features(2, 6, 5), torch.randn(2, 6, 3), torch.ones(2, 1, 1)
    known = empty()
    for step in range(6):
        known = corrected(known, keys[:, :1], values[:, step : step + 1], full)
        torch.testing.assert_close(recalled(known, keys[:, :1]), values[:, step : step + 1])
        # γ: the key counts once, however often it comes.
        torch.testing.assert_close(known.total, keys[:, 0])


def test_what_is_written_at_once_is_corrected_by_what_was_known_before() -> None:
    """Two values under one new key add up in the matrix and count twice: their mean is answered."""
    torch.manual_seed(0)
    key, values = features(2, 1, 5).expand(-1, 2, -1), torch.randn(2, 2, 3)
    known = corrected(empty(), key, values, torch.ones(2, 2, 1))
    torch.testing.assert_close(recalled(known, key[:, :1]), values.mean(1, keepdim=True))


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_an_empty_memory_answers_zero(size: float) -> None:
    assert not recalled(empty(), size * features(2, 3, 5)).any()


def test_an_answer_fades_where_hardly_a_key_is_matched() -> None:
    key = torch.eye(5)[:1].expand(2, 1, -1)
    known = corrected(empty(), key, torch.ones(2, 1, 3), torch.ones(2, 1, 1))
    asked = LEAST_MATCH / 2 * key + torch.eye(5)[1:2]
    torch.testing.assert_close(recalled(known, asked), torch.full((2, 1, 3), 0.5))
