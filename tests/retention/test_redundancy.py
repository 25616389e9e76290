"""The fast scan for the nearest later key against all distances, taken one by one."""

import pytest
import torch
from torch import Tensor

from mnemos.retention import redundancy
from mnemos.retention.redundancy import GROUP, by_products, by_scan, distance_to_later


def one_by_one(keys: Tensor) -> Tensor:
    """Every distance in float64 from the keys as they are."""
    distances = [(key - keys[row + 1 :]).norm(dim=-1) for row, key in enumerate(keys.double())]
    return torch.stack([each.min() if len(each) else each.new_tensor(torch.inf) for each in distances])


def normal(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, GROUP, 2 * GROUP + 1, 300, 515])
@pytest.mark.parametrize("size", [1, 3, 128])
def test_the_scan_is_exact_wherever_its_blocks_end(count: int, size: int) -> None:
    keys = normal(count, size).half().float()
    found = by_scan(keys, rows=2 * GROUP, columns=4 * GROUP)
    assert found is not None
    assert torch.equal(found, one_by_one(keys))


def test_near_ties_that_float32_cannot_tell_apart_are_told_apart() -> None:
    """Twelve neighbours of each key, at distances that differ by less than float32 products round."""
    centres = normal(40, 16) * 10
    steps = 1e-2 * torch.nn.functional.normalize(normal(12 * 40, 16, seed=1), dim=1)
    steps *= 1 + 1e-5 * torch.arange(12).repeat_interleave(40).flip(0).unsqueeze(1)
    keys = torch.cat([centres, centres.repeat(12, 1) + steps])
    found, truth = by_scan(keys), one_by_one(keys)
    assert found is not None
    assert torch.equal(found, truth)
    products = keys[:40] @ keys[40:].T - keys[40:].square().sum(1) / 2
    mistaken = (keys[:40] - keys[40:][products.argmax(1)]).double().norm(dim=1)
    assert (mistaken > truth[:40]).any()


def test_equal_keys_are_at_zero_and_the_last_at_infinity() -> None:
    keys = normal(200, 8)
    keys[3], keys[70], keys[71] = keys[150], keys[199], keys[199]
    found = by_scan(keys)
    assert found is not None
    assert (found == 0).nonzero().flatten().tolist() == [3, 70, 71]
    assert found[-1] == torch.inf


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e15])
def test_any_scale_is_exact(scale: float) -> None:
    keys = normal(200, 8) * scale
    assert torch.equal(distance_to_later(keys), one_by_one(keys))
    found = by_scan(keys)
    assert found is None or torch.equal(found, one_by_one(keys))


def test_what_float32_cannot_decide_is_left_to_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redundancy, "MANY", 1)
    for keys in (
        torch.ones(1000, 4),  # all are nearest
        normal(1000, 4) + 1e6,  # rounding is larger than the distances
        normal(1000, 4) * 1e30,  # products are infinite
    ):
        assert by_scan(keys) is None
        torch.testing.assert_close(distance_to_later(keys), one_by_one(keys), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])
def test_many_keys_of_any_dtype(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redundancy, "MANY", 1)
    keys = (normal(400, 40) > 0).to(dtype) if dtype == torch.uint8 else normal(400, 40).to(dtype)
    torch.testing.assert_close(distance_to_later(keys), one_by_one(keys), rtol=1e-14, atol=0)


def test_the_scan_is_its_twin_on_many_keys() -> None:
    keys = normal(5000, 32).half()
    assert torch.equal(distance_to_later(keys), by_products(keys.double()))
