"""The slots that are found are those that comparing with all of them finds."""

import pytest
import torch

from mnemos.memories import slot_bounds, slot_search
from mnemos.memories.slot_bounds import SlotBounds, products_are_exact
from mnemos.memories.slot_search import ExactSearch, IndexedSearch
from mnemos.ops.delta_rule import unit
from mnemos.ops.sparse_access import nearest_slots

needs_products = pytest.mark.skipif(
    not products_are_exact(32, 4), reason="torch's products of 8 bits saturate on this processor"
)


@pytest.fixture
def small_blocks(monkeypatch):
    """A few hundred slots are searched as a million are."""
    monkeypatch.setattr(slot_search, "MANY", 100)
    monkeypatch.setattr(slot_search, "GROUP", 4)
    monkeypatch.setattr(slot_bounds, "GROUP", 4)
    monkeypatch.setattr(slot_bounds, "APART", 64)


@pytest.fixture
def roughly_first(monkeypatch):
    """Counts how often the search found what it wanted in a few groups."""
    found = []
    plain = ExactSearch._in_groups

    def counted(self, queries, count, groups):
        slots = plain(self, queries, count, groups)
        found.append(slots is not None)
        return slots

    monkeypatch.setattr(ExactSearch, "_in_groups", counted)
    return found


@pytest.mark.parametrize(
    ("slots", "used", "batch"),
    [(5, 5, 2), (700, 700, 2), (1100, 1100, 1), (700, 300, 3), (701, 701, 1), (257, 257, 2), (200, 1, 2)],
)
def test_the_exact_search_finds_what_comparing_with_all_finds(slots, used, batch, small_blocks):
    torch.manual_seed(slots)
    memory = torch.zeros(batch, slots, 6)
    memory[:, :used] = torch.randn(batch, used, 6) * 10 ** torch.randn(batch, used, 1)
    search, count = ExactSearch(), min(3, used)
    search.build(memory)
    first = slots * torch.arange(batch).unsqueeze(1)
    for _ in range(5):
        queries = torch.randn(batch, 2, 6)
        assert torch.equal(search.nearest(queries, count), nearest_slots(memory, queries, count))
        changed = torch.randint(slots, (batch, 4))
        memory[torch.arange(batch).unsqueeze(1), changed] = torch.randn(batch, 4, 6)
        memory[0, 0] = 0
        search.update(torch.cat([(changed + first).flatten(), torch.tensor([0])]))


@needs_products
def test_few_groups_are_enough_where_slots_differ(small_blocks, roughly_first):
    torch.manual_seed(0)
    memory = torch.randn(1, 4000, 8)
    search = ExactSearch()
    search.build(memory)
    for _ in range(10):
        queries = torch.randn(1, 3, 8)
        assert torch.equal(search.nearest(queries, 3), nearest_slots(memory, queries, 3))
    assert roughly_first == [True] * 10


@needs_products
@pytest.mark.parametrize(("distinct", "few"), [(2, False), (500, True)])
def test_slots_that_hold_the_same_may_stand_for_each_other(distinct, few, small_blocks, roughly_first):
    torch.manual_seed(0)
    memory = torch.randn(2, distinct, 6)[:, torch.randint(distinct, (1500,))]
    search = ExactSearch()
    search.build(memory)
    queries = torch.randn(2, 2, 6)
    scores = unit(queries) @ unit(memory).mT
    found = search.nearest(queries, 5)
    assert all(len(set(slots.tolist())) == 5 for slots in found.flatten(0, 1))
    torch.testing.assert_close(scores.gather(2, found), scores.topk(5, dim=2).values)
    assert roughly_first == [few]


@pytest.mark.parametrize("width", [1, 2])
def test_without_exact_products_nothing_is_looked_at_roughly(width, small_blocks, roughly_first, monkeypatch):
    monkeypatch.setattr(
        torch, "_int_mm", lambda table, asked, out=None: torch.zeros(256, 2, dtype=torch.int32)
    )
    slot_bounds.products_are_exact.cache_clear()
    memory, queries = torch.randn(1, 300, width), torch.randn(1, 2, width)
    search = ExactSearch()
    search.build(memory)
    assert torch.equal(search.nearest(queries, 1), nearest_slots(memory, queries, 1))
    assert not roughly_first
    slot_bounds.products_are_exact.cache_clear()


def test_more_slots_than_there_are_groups_are_found(small_blocks, monkeypatch):
    monkeypatch.setattr(slot_search, "GROUP", 64)
    monkeypatch.setattr(slot_bounds, "GROUP", 64)
    torch.manual_seed(0)
    memory, queries = torch.randn(2, 300, 6), torch.randn(2, 2, 6)
    search = ExactSearch()
    search.build(memory)
    assert torch.equal(search.nearest(queries, 40), nearest_slots(memory, queries, 40))


@pytest.mark.parametrize(("slots", "width"), [(300, 2), (300, 7), (1025, 32), (513, 130)])
@needs_products
def test_no_slot_of_a_group_is_more_similar_than_its_bound(slots, width, small_blocks):
    torch.manual_seed(width)
    memory = torch.randn(2, slots, width) ** 5 + 1e-4  # most of a slot in few of its numbers
    memory[:, :width] = torch.eye(width)[:slots]
    queries = unit(torch.cat([torch.randn(2, 2, width), memory[:, 200:201], torch.zeros(2, 1, width)], dim=1))
    bounds = SlotBounds(memory).of_groups(queries, slots)
    cosines = torch.zeros(2, 4, bounds.shape[2] * 4)  # beyond the last slot there is nothing
    cosines[..., :slots] = queries @ unit(memory).mT
    greatest = cosines.unflatten(2, (-1, 4)).amax(3)
    assert (greatest <= bounds).all()
    assert (bounds - greatest).max() < 0.012 * width**0.5


def test_an_index_that_looks_everywhere_finds_what_comparing_with_all_finds():
    torch.manual_seed(0)
    memory = torch.zeros(2, 90, 6)
    memory[:, :60] = torch.randn(2, 60, 6)
    search = IndexedSearch(probes=1000)
    search.build(memory)
    for _ in range(5):
        queries = torch.randn(2, 2, 6)
        assert torch.equal(search.nearest(queries, 3), nearest_slots(memory, queries, 3))
        changed = torch.randint(180, (5,))
        memory.view(180, 6)[changed] = torch.randn(5, 6)
        memory.view(180, 6)[changed[0]] = 0
        search.update(changed)


def test_an_index_finds_what_is_asked_for_by_itself_and_nothing_in_an_empty_memory():
    torch.manual_seed(0)
    memory = torch.randn(1, 4000, 16)
    search = IndexedSearch(probes=4)
    search.build(memory)
    asked = torch.randint(4000, (1, 50))
    near = memory[:, asked[0]] + 0.05 * torch.randn(1, 50, 16)
    assert (search.nearest(near, 1)[..., 0] == asked).float().mean() > 0.95
    search.build(torch.zeros(1, 10, 16))
    assert (search.nearest(near, 2) == -1).all()
