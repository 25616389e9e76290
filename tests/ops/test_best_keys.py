import pytest
import torch

from mnemos.ops import best_keys as module
from mnemos.ops.best_keys import best_keys


@pytest.mark.parametrize("scores", [1, 100, 1 << 20])
def test_the_best_within_the_bounds_of_each_query(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCORES", scores)  # in blocks of one step, of a few, and at once
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 3, 17, 4), torch.randn(2, 3, 40, 4)
    first = torch.randint(0, 20, (2, 17))
    last = first + torch.randint(5, 20, (2, 17))
    found = best_keys(queries, keys, first, last, 5)
    column = torch.arange(40)
    inside = (column >= first.unsqueeze(2)) & (column <= last.unsqueeze(2))
    products = (queries @ keys.mT).masked_fill(~inside.unsqueeze(1), -torch.inf)
    torch.testing.assert_close(products.gather(3, found), products.topk(5).values)


def test_more_than_there_are_gives_all() -> None:
    queries, keys = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 3, 4)
    bounds = torch.zeros(1, 2, dtype=torch.int64)
    found = best_keys(queries, keys, bounds, bounds + 1, 9)
    assert found.sort(3).values.tolist() == [[[[0, 1, 2], [0, 1, 2]]]]
    assert found[..., -1].eq(2).all()  # outside, so last


@pytest.mark.parametrize("count", [1, 18, 30, 40])
def test_positions_are_of_keys_even_where_nothing_may_be_found(count: int) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 40, 4)
    for start in (0, 20, 39, 45):  # the bounds of the first query are empty
        first = torch.tensor([[start + 1, start, start]])
        found = best_keys(queries, keys, first, first - torch.tensor([[1, 0, 0]]), count)
        assert found.shape == (1, 2, 3, count)
        assert found.min() >= 0
        assert found.max() < 40
        assert all(len(row.unique()) == count for row in found.flatten(0, 2))
        if start < 40:
            assert found[:, :, 1:, 0].eq(start).all()
