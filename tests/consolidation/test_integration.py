import pytest
import torch

import mnemos
from mnemos.consolidation import Episodes
from mnemos.consolidation.integration import chained


def triads(count: int = 8, shuffled: bool = False) -> Episodes:
    """A to B and B to C as vectors of one kind, each written as an experience of its own."""
    episodes = Episodes(mnemos.open(":memory:", metric="euclidean"))
    items = torch.eye(3 * count)
    first, second, third = items.split(count)
    episodes.write(first, second)
    episodes.write(second.flip(0) if shuffled else second, third.flip(0) if shuffled else third)
    return episodes


def test_from_a_to_b_and_from_b_to_c_follows_a_to_c() -> None:
    """And from B, whose chain ends at once, C."""
    source = chained(triads(), lambda targets: targets)
    inputs, targets = source(200, torch.Generator().manual_seed(0))
    where = inputs.argmax(1)
    assert torch.equal(targets.argmax(1), 16 + where % 8)
    assert set(where.tolist()) == set(range(16))


def test_a_longer_way_round() -> None:
    """A ring is gone round, but no experience is met twice."""
    episodes = Episodes(mnemos.open(":memory:", metric="euclidean"))
    items = torch.eye(5)
    episodes.write(items, items.roll(-1, 0))
    for hops in (2, 3, 5, 9):
        inputs, targets = chained(episodes, lambda one: one, hops=hops)(50, torch.Generator().manual_seed(1))
        assert torch.equal(targets.argmax(1), (inputs.argmax(1) + min(hops, 5)) % 5)


def test_what_lies_too_far_away_is_no_cue() -> None:
    episodes = triads()
    near, far = (chained(episodes, lambda targets: targets + 0.01, nearest=reach) for reach in (0.1, 0.0))
    assert (near(50, torch.Generator().manual_seed(2))[1].argmax(1) >= 16).all()
    inputs, targets = far(50, torch.Generator().manual_seed(2))
    assert torch.equal(targets.argmax(1), inputs.argmax(1) + 8)


def test_without_the_second_link_nothing_follows() -> None:
    episodes = triads()
    episodes.store.delete(episodes.traces().ids[8:])
    inputs, targets = chained(episodes, lambda one: one)(50, torch.Generator().manual_seed(3))
    assert torch.equal(targets.argmax(1), inputs.argmax(1) + 8)


def test_refused() -> None:
    episodes = Episodes(mnemos.open(":memory:"))
    episodes.write(torch.eye(2), torch.eye(2))
    with pytest.raises(ValueError, match="hops must be at least 2, not 1"):
        chained(episodes, lambda one: one, hops=1)
    with pytest.raises(ValueError, match="nearest must be 0 or more, not -1"):
        chained(episodes, lambda one: one, nearest=-1.0)
    with pytest.raises(ValueError, match="metric is a distance, not inner_product"):
        chained(episodes, lambda one: one)(1, torch.Generator())
