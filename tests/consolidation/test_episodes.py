from pathlib import Path

import pytest
import torch

import mnemos
from mnemos.consolidation import Episodes
from mnemos.consolidation.selection import balanced, similar_to
from mnemos.retention import first_in_first_out, least_surprising
from mnemos.retention.policy import Policy


def batch(rows: int, classes: int = 2, start: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs that say their number, in classes that take turns."""
    number = torch.arange(start, start + rows)
    return number[:, None].expand(-1, 3).float(), number % classes


def test_written_and_drawn() -> None:
    episodes = Episodes(mnemos.open(":memory:"))
    inputs, targets = batch(8)
    rewards = torch.arange(8).double()
    ids = episodes.write(inputs, targets, rewards=rewards)
    assert len(episodes) == len(ids) == 8
    drawn = episodes.sample(100)
    rows = drawn.inputs[:, 0].long()
    assert torch.equal(drawn.ids, ids[rows])
    assert torch.equal(drawn.targets, targets[rows])
    assert torch.equal(drawn.others["rewards"], rewards[rows])
    assert set(rows.tolist()) == set(range(8))
    assert torch.equal(episodes.get(ids[[5, 2]]).inputs, inputs[[5, 2]])


@pytest.mark.parametrize("balance", [False, True])
def test_reservoir(balance: bool) -> None:
    """Of all that was ever written, or of each class, every experience stays as often as any other."""
    stayed = torch.zeros(40)
    for seed in range(100):
        episodes = Episodes(mnemos.open(":memory:"), 10, balanced=balance, seed=seed)
        for start in range(0, 40, 8):
            episodes.write(*batch(8, start=start))
        assert len(episodes) == 10
        kept = episodes.traces()
        if balance:
            assert kept.groups.bincount().tolist() == [5, 5]
        stayed[episodes.get(kept.ids).inputs[:, 0].long()] += 1
    # 25 on average, standard deviation 4.3 for one and 1.5 for eight: each part of the history stays.
    assert abs(stayed.view(5, 8).sum(1) / 8 - 25).max() < 6
    assert stayed.min() > 8


@pytest.mark.parametrize("balance", [False, True])
def test_not_written_is_as_evicted(balance: bool) -> None:
    """What is never written because it would be the first to go is what would be evicted."""
    torch.manual_seed(0)
    same = Policy("the same under another name", least_surprising().score)
    short, long = (
        Episodes(mnemos.open(":memory:"), 7, balanced=balance, policy=policy) for policy in (None, same)
    )
    for start in range(0, 60, 6):
        strength = torch.randint(5, (6,)).double()  # with many ties
        for episodes in (short, long):
            episodes.write(*batch(6, classes=3, start=start), strength=strength)
    kept = [sorted(one.get(one.traces().ids).inputs[:, 0].tolist()) for one in (short, long)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == (6 if balance else 7)
    assert short.store.ids()[-1] < long.store.ids()[-1]


def test_a_class_that_comes_late_has_its_part() -> None:
    episodes = Episodes(mnemos.open(":memory:"), 12, balanced=True)
    inputs, _ = batch(30)
    for label, expected in ((3, [12]), (1, [6, 6]), (0, [4, 4, 4])):
        episodes.write(inputs, torch.full((30,), label))
        assert episodes.traces().groups.unique(return_counts=True)[1].tolist() == expected
    assert episodes.store.count({"class": 1}) == 4
    crowded = Episodes(mnemos.open(":memory:"), 2, balanced=True)
    with pytest.raises(ValueError, match="capacity must leave room for one of each of 3 classes, not 2"):
        crowded.write(*batch(9, classes=3))
    assert len(crowded) == 0


def test_other_policies() -> None:
    episodes = Episodes(mnemos.open(":memory:"), 5, policy=first_in_first_out())
    for start in range(0, 12, 4):
        episodes.write(*batch(4, start=start))
    assert episodes.get(episodes.traces().ids).inputs[:, 0].sort().values.tolist() == [7, 8, 9, 10, 11]


def test_what_others_do_is_seen() -> None:
    """A lesion, an edit, and what another object writes."""
    store = mnemos.open(":memory:")
    mine, yours = Episodes(store), Episodes(store)
    ids = mine.write(*batch(6))
    assert len(yours) == 6
    store.delete(ids[:2])
    assert set(mine.sample(50).ids.tolist()) == set(ids[2:].tolist())
    assert mine.delete({"class": 1}) == 2
    yours.write(*batch(1, start=50))
    store.update(ids[2:3], values=store.gather(yours.traces().ids[-1:])[1])
    assert mine.get(ids[2:3]).inputs[0].tolist() == [50] * 3
    assert sorted(mine.sample(100).inputs[:, 0].unique().tolist()) == [4, 50]
    assert mine.delete() == 3
    with pytest.raises(ValueError, match="no experiences"):
        mine.sample(1)


def test_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Another process opens the store, knows what an experience is, and draws on where this one was."""
    with mnemos.open(tmp_path / "episodes") as store:
        episodes = Episodes(store, 6)
        for start in range(0, 20, 4):
            episodes.write(*batch(4, start=start))
        state = episodes.state_dict()
        layout, expected = episodes.layout, [episodes.sample(5).ids, episodes.sample(5, balanced()).ids]
    with mnemos.open(tmp_path / "episodes") as store:
        again = Episodes(store, 6, seed=1)
        assert again.layout == layout
        again.load_state_dict(state)
        assert torch.equal(again.sample(5).ids, expected[0])
        assert torch.equal(again.sample(5, balanced()).ids, expected[1])


def test_nearest() -> None:
    episodes = Episodes(mnemos.open(":memory:", metric="euclidean"))
    episodes.write(*batch(10))
    found = episodes.nearest(torch.tensor([[3.2] * 3, [8.9] * 3]), k=2)
    assert found.inputs[:, :, 0].tolist() == [[3, 4], [9, 8]]
    assert found.targets.tolist() == [[1, 0], [1, 0]]
    with pytest.raises(ValueError, match="at most the 10"):
        episodes.nearest(torch.zeros(1, 3), k=11)


def test_by_resemblance() -> None:
    episodes = Episodes(mnemos.open(":memory:"))
    inputs = torch.eye(3)[torch.arange(30) % 3]
    episodes.write(inputs, torch.arange(30) % 3)
    drawn = episodes.sample(50, similar_to(torch.tensor([[0.0, 1.0, 0.1]]), sharpness=20.0))
    assert (drawn.targets == 1).all()


def test_refused() -> None:
    store = mnemos.open(":memory:")
    with pytest.raises(ValueError, match="capacity must be at least 1, or None, not 0"):
        Episodes(store, 0)
    episodes = Episodes(store, balanced=True, capacity=4)
    with pytest.raises(ValueError, match=r"needs classes for targets.* not torch.float32 of shape \(2,\)"):
        episodes.write(torch.zeros(2, 3), torch.zeros(2))
    episodes.write(*batch(2))
    before = store.revision
    with pytest.raises(ValueError, match=r"inputs must be torch.float32 of shape \(rows, \*\(3,\)\)"):
        episodes.write(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="strength and metadata must be of 2"):
        episodes.write(*batch(2), strength=torch.ones(3))
    assert store.revision == before
    with pytest.raises(KeyError, match="77"):
        episodes.get(torch.tensor([77]))
    other = mnemos.open(":memory:")
    other.write(torch.zeros(1, 2), torch.zeros(1), namespace="episodes")
    with pytest.raises(ValueError, match="records of another kind"):
        Episodes(other)
