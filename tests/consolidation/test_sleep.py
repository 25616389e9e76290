from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mnemos
from mnemos.consolidation import EWC, Consolidator, Episodes
from mnemos.consolidation.letting_go import answered, confident, let_go
from mnemos.consolidation.selection import recent
from mnemos.consolidation.sleep import Phase, Sleep, from_store


def day(rows: int = 60) -> tuple[Tensor, Tensor]:
    """Three clouds of points, and which cloud."""
    generator = torch.Generator().manual_seed(3)
    classes = torch.arange(rows) % 3
    return torch.randn(rows, 4, generator=generator) + 6 * torch.eye(4)[classes], classes


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def night(model: nn.Module, episodes: Episodes, **options: Any) -> Sleep:
    early = Phase("early", 7, [from_store(episodes, recent(10.0))])
    late = Phase("late", 5, [from_store(episodes), from_store(episodes, recent(50.0))])
    mover = torch.optim.Adam(model.parameters(), lr=5e-2)
    return Sleep(model, mover, [early, late], cycles=4, rows=16, **options)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([one.detach().flatten() for one in model.parameters()])


def test_what_was_met_by_day_is_learned_by_night() -> None:
    """The network has never seen an example itself."""
    episodes, (inputs, targets) = Episodes(mnemos.open(":memory:")), day()
    episodes.write(inputs, targets)
    model = network()
    told: list[tuple[float, str]] = []
    sleep = night(model, episodes)
    slept = sleep.run(lambda share, what: told.append((share, what)))
    assert slept.steps == sleep.length == 48
    assert (model(inputs).argmax(1) == targets).float().mean() > 0.9
    assert all(losses[-1] < losses[0] for losses in slept.losses.values())
    assert told[-1][0] == 1
    assert told[0][1].startswith("late, step 10 of 48, loss")
    assert sleep.run().steps == 0


def test_interrupted_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    """In the middle of a phase, by another process's objects, where letting go has changed the store
    meanwhile."""
    inputs, targets = day()
    with mnemos.open(tmp_path / "episodes") as store:
        episodes = Episodes(store)
        episodes.write(inputs, targets)
        model = network()
        sleep = night(model, episodes, let_go=lambda: let_go(model, episodes, confident(0.9), keep=20))
        sleep.run(until=29)
        assert len(episodes) < 60
        saved = {
            "model": model.state_dict(),
            "optimizer": sleep.optimizer.state_dict(),
            "sleep": sleep.state_dict(),
            "episodes": episodes.state_dict(),
        }
        torch.save(saved, tmp_path / "night.pt")
        store.snapshot(tmp_path / "copy")
        whole = sleep.run()
    with mnemos.open(tmp_path / "copy") as store:
        found = torch.load(tmp_path / "night.pt", weights_only=True)
        other, again = network(seed=1), Episodes(store)
        other.load_state_dict(found["model"])
        goes_on = night(other, again, let_go=lambda: let_go(other, again, confident(0.9), keep=20))
        goes_on.optimizer.load_state_dict(found["optimizer"])
        again.load_state_dict(found["episodes"])
        goes_on.load_state_dict(found["sleep"])
        slept = goes_on.run()
    assert torch.equal(weights(model), weights(other))
    assert slept.losses == whole.losses
    assert torch.equal(slept.released, whole.released)
    assert slept.steps == whole.steps == 19


def test_penalties_hold_in_sleep() -> None:
    episodes = Episodes(mnemos.open(":memory:"))
    episodes.write(*day())
    gone = []
    for strength in (0.0, 1e6):
        model = network()
        consolidator = Consolidator(model, [EWC(strength)])
        consolidator.end_context([day()])
        before = weights(model)
        sleep = night(model, episodes)
        consolidator.attach(sleep.optimizer)
        sleep.run()
        gone.append((weights(model) - before).norm())
    assert gone[1] < 0.9 * gone[0]


def test_a_batch_of_equal_parts() -> None:
    """Two sources: the loss is the mean of theirs."""
    seen: list[tuple[int, float]] = []

    def source(value: float) -> Any:
        def drawn(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            seen.append((rows, value))
            return torch.full((rows, 1), value), torch.zeros(rows, dtype=torch.int64)

        return drawn

    model = nn.Linear(1, 2)
    sleep = Sleep(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        [Phase("both", 1, [source(1.0), source(3.0)])],
        rows=5,
    )
    slept = sleep.run()
    assert seen == [(3, 1.0), (3, 3.0)]
    each = [
        cross_entropy(model(torch.tensor([[value]])), torch.zeros(1, dtype=torch.int64))
        for value in (1.0, 3.0)
    ]
    assert slept.losses["both"][0] == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)


def test_letting_go() -> None:
    """What the network knows goes, the weakest first, and nothing else."""
    episodes, (inputs, targets) = Episodes(mnemos.open(":memory:")), day()
    wrong = targets.clone()
    wrong[:6] = (wrong[:6] + 1) % 3
    strength = torch.arange(60.0).flip(0)
    ids = episodes.write(inputs, wrong, strength=strength)
    model = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3, 4))
    right = model(inputs).argmax(1) == wrong
    released = let_go(model, episodes, answered, keep=40)
    assert len(episodes) == 40
    known = ids[right]
    assert torch.equal(released, known[-20:])  # the later the weaker
    assert torch.equal(let_go(model, episodes, answered), known[:-20])
    assert torch.equal(episodes.traces().ids.sort().values, ids[~right])
    assert not len(let_go(model, episodes, answered))
    assert not len(let_go(model, Episodes(mnemos.open(":memory:"))))


def test_by_default_only_what_is_known_well_goes() -> None:
    episodes, (inputs, targets) = Episodes(mnemos.open(":memory:")), day()
    ids = episodes.write(inputs, targets)
    model = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3, 4) / 2)
    chances = model(inputs).softmax(1).gather(1, targets[:, None]).squeeze(1)
    assert 0 < (chances >= 0.9).sum() < len(ids)
    assert torch.equal(let_go(model, episodes), ids[chances >= 0.9])


def test_refused() -> None:
    episodes, model = Episodes(mnemos.open(":memory:")), network()
    for steps, sources in ((0, [from_store(episodes)]), (3, [])):
        with pytest.raises(ValueError, match="a phase needs steps and sources"):
            Phase("none", steps, sources)
    mover = torch.optim.SGD(model.parameters())
    phase = Phase("one", 1, [from_store(episodes)])
    with pytest.raises(ValueError, match=r"must be there and have different names, not .'one', 'one'."):
        Sleep(model, mover, [phase, phase])
    with pytest.raises(ValueError, match="cycles and rows must be at least 1, not 0 and 128"):
        Sleep(model, mover, [phase], cycles=0)
    with pytest.raises(ValueError, match="the state is of another night"):
        night(model, episodes).load_state_dict(night(model, episodes, seed=1).state_dict())
    with pytest.raises(ValueError, match="chance must be above 0 and at most 1, not 0"):
        confident(0.0)
    with pytest.raises(ValueError, match="no experiences to draw from"):
        night(model, episodes).run()
