"""Saturating counters: the sparse path against the dense loop, and the limits."""

import pytest
import torch

from mnemos.ops.counters import recall, store_, store_and_recall, store_and_recall_loop
from mnemos.ops.hamming import pack, within_radius


def problem(batch: int, time: int, bits: int, locations: int, width: int, limit: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(time)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    counters = ((2 * random(batch, locations, width) - 1) * limit).round().to(dtype)
    addresses = pack(random(locations, bits) < 0.5).mT.contiguous()
    queries = pack(random(batch, time, bits) < 0.5)
    changes = ((2 * random(batch, time, width) - 1) * limit).round().int()
    return counters, addresses, queries, changes, random(batch, time) < 0.7, random(batch, time) < 0.1


@pytest.mark.parametrize(
    ("sizes", "limit", "dtype"),
    [
        ((1, 1, 1, 1, 1), 1, torch.int8),
        ((2, 40, 9, 50, 3), 127, torch.int8),
        ((3, 7, 65, 33, 5), 32767, torch.int16),
        ((1, 30, 12, 20, 130), 3, torch.int8),
        ((2, 0, 5, 4, 3), 7, torch.int8),
    ],
)
def test_the_sparse_path_is_the_loop(sizes, limit, dtype) -> None:
    given = problem(*sizes, limit, dtype)
    before = [x.clone() for x in given]
    radius = sizes[2] // 2
    sums, counters = store_and_recall(*given, radius, limit)
    expected_sums, expected = store_and_recall_loop(*given, radius, limit)
    assert torch.equal(sums, expected_sums)
    assert torch.equal(counters, expected)
    assert counters.abs().max() <= limit
    assert all(torch.equal(now, was) for now, was in zip(given, before, strict=True))


def test_storing_and_recalling_are_the_parts_of_both() -> None:
    counters, addresses, queries, changes, *_ = problem(2, 20, 30, 40, 5, 7, torch.int8)
    always, never = torch.ones(2, 20, dtype=torch.bool), torch.zeros(2, 20, dtype=torch.bool)
    pairs = within_radius(queries.flatten(0, 1), addresses, 14)
    stored = counters.clone()
    store_(stored, pairs, changes, 7)
    assert torch.equal(
        stored, store_and_recall_loop(counters, addresses, queries, changes, always, never, 14, 7)[1]
    )
    sums = store_and_recall_loop(counters, addresses, queries, 0 * changes, always, never, 14, 7)[0]
    assert torch.equal(recall(counters, pairs, 20), sums)


def test_a_counter_that_stopped_forgets_how_often_it_was_pushed() -> None:
    everywhere = torch.stack([torch.arange(5), torch.zeros(5, dtype=torch.long)], dim=1)
    changes = torch.tensor([1, 1, 1, 1, -1]).view(1, 5, 1)
    for limit, expected in ((2, 1), (9, 3)):
        counter = torch.zeros(1, 1, 1, dtype=torch.int8)
        store_(counter, everywhere, changes, limit)
        assert counter.item() == expected


@pytest.mark.parametrize(("limit", "dtype"), [(127, torch.int8), (32767, torch.int16)])
def test_nothing_overflows_on_the_way(limit: int, dtype: torch.dtype) -> None:
    place = torch.zeros(1, 2, dtype=torch.long)
    for start in (-limit, -1, 0, 5, limit):
        for change in (-limit, -1, 0, 1, limit):
            counter = torch.full((1, 1, 1), start, dtype=dtype)
            store_(counter, place, torch.tensor(change).view(1, 1, 1), limit)
            assert counter.item() == max(-limit, min(limit, start + change))


def test_an_operator_of_its_own_keeps_the_rules_of_operators() -> None:
    given = problem(2, 6, 9, 50, 3, 7, torch.int8)
    torch.library.opcheck(torch.ops.mnemos.store_and_recall.default, (*given, 4, 7))
