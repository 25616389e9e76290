from pathlib import Path

import pytest
import torch
from torch import Tensor

import mnemos
from mnemos.consolidation import Episodes, Prioritised
from mnemos.consolidation.priorities import BLOCK, SumTree
from mnemos.consolidation.selection import found
from mnemos.retention import first_in_first_out


def tree_of(weights: Tensor) -> SumTree:
    tree = SumTree()
    tree.resize(len(weights))
    tree.put(torch.arange(len(weights)), weights.double())
    return tree


def lived(count: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs that say their number."""
    number = torch.arange(start, start + count)
    return number[:, None].expand(-1, 3).float(), number.double()


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
def test_shares_are_exact(count: int) -> None:
    """With integers for weights, which sums keep, as many of all equal parts are found as the weight says."""
    weights = torch.randint(4, (count,), generator=torch.Generator().manual_seed(count))
    weights[count // 2] = 7
    total = int(weights.sum())
    spots = (torch.arange(total).double() + 0.5) / total
    assert torch.equal(tree_of(weights).find(spots).bincount(minlength=count), weights)


def test_the_plain_twin() -> None:
    """The same places as a search in the cumulative sum, at random spots and at bounds, after changes."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(1000, dtype=torch.float64, generator=generator)
    weights[torch.rand(1000, generator=generator) < 0.5] = 0
    tree = tree_of(weights)
    for _ in range(20):
        places = torch.randperm(1000, generator=generator)[:50]
        weights[places] = torch.rand(50, dtype=torch.float64, generator=generator).round(decimals=1)
        tree.put(places, weights[places])
        spots = torch.rand(500, dtype=torch.float64, generator=generator)
        assert torch.equal(tree.find(spots), found(weights.cumsum(0), spots))
    bounds = weights.cumsum(0) / weights.sum()
    drawn = tree.find(torch.cat([bounds, torch.nextafter(bounds, torch.ones(())), torch.tensor([0.0, 1.0])]))
    assert (weights[drawn] > 0).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-17, 1.0, 1e300])
def test_no_weight_is_never_found(scale: float) -> None:
    """Wherever rounding puts a spot: among zeros on both sides of weights that differ by many orders."""
    generator = torch.Generator().manual_seed(1)
    weights = 10 ** (-20 * torch.rand(4 * BLOCK, dtype=torch.float64, generator=generator)) * scale
    weights[torch.rand(4 * BLOCK, generator=generator) < 0.7] = 0
    weights[-BLOCK - 3 :] = 0
    tree = tree_of(weights)
    spots = torch.cat([torch.rand(2000, dtype=torch.float64, generator=generator), torch.tensor([0.0, 1.0])])
    assert (weights[tree.find(spots)] > 0).all()


def test_sums_do_not_drift() -> None:
    """After many changes by orders of magnitude every sum is that of a new tree, to the last bit."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(3 * BLOCK + 5, dtype=torch.float64, generator=generator)
    tree = tree_of(weights)
    for size in range(200):
        places = torch.randint(len(weights), (3,), generator=generator)
        weights[places] = 10.0 ** (size % 30) * torch.rand(1, dtype=torch.float64, generator=generator)
        tree.put(places, weights[places])
    spots = torch.rand(1000, dtype=torch.float64, generator=generator)
    assert torch.equal(tree.find(spots), tree_of(weights).find(spots))
    assert torch.equal(tree._sums[:4], tree_of(weights)._sums)


def test_drawn_by_surprise() -> None:
    """Eq. 1, by chi-square of independent batches; what does not surprise is not drawn if the floor is 0."""
    episodes, priorities = Episodes(mnemos.open(":memory:")), Prioritised(exponent=0.5, floor=0.0)
    ids = episodes.write(*lived(50))

    def counts_of(rows: int, times: int = 1) -> Tensor:
        drawn = torch.cat([episodes.sample(rows, priorities).targets for _ in range(times)])
        return drawn.long().bincount(minlength=50)

    assert counts_of(10_000).tolist() == [200] * 50  # nothing is known: all alike
    surprise = torch.arange(50).double()
    priorities.update(ids, surprise)
    shares = surprise.sqrt() / surprise.sqrt().sum()
    counts = counts_of(1, times=2000)
    assert counts[0] == 0
    difference = counts[1:] - 2000 * shares[1:]
    chi_square = (difference.square() / (2000 * shares[1:])).sum()
    assert 22 < chi_square < 85  # 48 degrees of freedom: 1 in 1,000 is outside
    assert (counts_of(20_000) - 20_000 * shares).abs().max() <= 2  # one from each of equal parts


def test_corrections_make_it_uniform() -> None:
    episodes, priorities = Episodes(mnemos.open(":memory:")), Prioritised()
    values = torch.linspace(-1, 3, 20).double()
    ids = episodes.write(torch.zeros(20, 1), values)
    episodes.sample(1, priorities)
    priorities.update(ids, torch.rand(20, generator=torch.Generator().manual_seed(0)) + 0.01)
    batch = episodes.sample(50_000, priorities)
    weights = priorities.corrections(batch.ids, 1.0)
    assert weights.max() == 1
    assert (weights * batch.targets).sum() / weights.sum() == pytest.approx(values.mean().item(), abs=1e-3)
    assert torch.equal(priorities.corrections(batch.ids, 0.0), torch.ones(50_000).double())


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_priorities_follow_their_experiences(where: str, tmp_path: Path) -> None:
    """Through eviction and deletion, which move others to other places, and writing by somebody else."""
    store = mnemos.open(":memory:" if where == "memory" else tmp_path / "store")
    episodes, priorities = Episodes(store, 40, policy=first_in_first_out()), Prioritised(1.0, floor=0.0)
    generator = torch.Generator().manual_seed(3)
    believed: dict[int, float] = {}
    for step in range(12):
        written = episodes.write(*lived(9, start=9 * step)).tolist()
        if step == 7:
            store.delete(torch.tensor(written[2:4]))
            Episodes(store).write(*lived(2, start=500))
        batch = episodes.sample(16, priorities)
        present = episodes.traces().ids.tolist()
        believed = {id_: believed.get(id_, priorities.greatest) for id_ in present}
        surprise = torch.rand(16, dtype=torch.float64, generator=generator) * (step + 1)
        by_id = dict(zip(batch.ids.tolist(), surprise.tolist(), strict=True))
        priorities.update(torch.tensor(list(by_id)), torch.tensor(list(by_id.values()), dtype=torch.float64))
        believed |= by_id
        weights = torch.tensor([believed[id_] for id_ in present], dtype=torch.float64)
        assert torch.equal(priorities._tree.weights, weights)
    before = priorities._tree.weights.clone()
    priorities.update(torch.tensor([written[2]]) - 50, torch.tensor([3.0]))  # long gone
    assert torch.equal(priorities._tree.weights, before)
    store.close()


def test_goes_on(tmp_path: Path) -> None:
    """Another process draws what this one would have drawn."""

    def run(episodes: Episodes, priorities: Prioritised) -> Tensor:
        ids = []
        for step in range(5):
            batch = episodes.sample(8, priorities)
            priorities.update(batch.ids, batch.inputs[:, 0] + step)
            ids.append(batch.ids)
        return torch.cat(ids)

    with mnemos.open(tmp_path / "store") as store:
        episodes, priorities = Episodes(store, 100), Prioritised()
        for start in range(0, 160, 40):
            episodes.write(*lived(40, start=start))
            run(episodes, priorities)
        state = {"episodes": episodes.state_dict(), "priorities": priorities.state_dict()}
        torch.save(state, tmp_path / "state")
        expected = run(episodes, priorities)
    with mnemos.open(tmp_path / "store") as store:
        state = torch.load(tmp_path / "state", weights_only=True)
        episodes, priorities = Episodes(store, 100), Prioritised()
        episodes.load_state_dict(state["episodes"])
        priorities.load_state_dict(state["priorities"])
        assert torch.equal(run(episodes, priorities), expected)


def test_refused() -> None:
    with pytest.raises(ValueError, match="exponent must be 0 or more, not -1"):
        Prioritised(-1.0)
    episodes, priorities = Episodes(mnemos.open(":memory:")), Prioritised(floor=0.0)
    ids = episodes.write(*lived(3))
    with pytest.raises(KeyError, match="the experience 3 was never there"):
        priorities.update(ids, torch.ones(3))
    episodes.sample(1, priorities)
    before = priorities._tree.weights.clone()
    for wrong in (-1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="surprise must be 0 or more, and finite"):
            priorities.update(ids, torch.tensor([0.0, wrong, 1.0]))
    assert torch.equal(priorities._tree.weights, before)
    priorities.update(ids, torch.zeros(3))
    with pytest.raises(ValueError, match="no experience has a priority above 0"):
        episodes.sample(1, priorities)
    with pytest.raises(ValueError, match="one of these has priority 0"):
        priorities.corrections(ids, 1.0)
    episodes.delete()
    with pytest.raises(ValueError, match="no experiences"):
        episodes.sample(1, priorities)
