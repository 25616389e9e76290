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
