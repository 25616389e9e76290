"""Parts of the studies `lesion`, `independence`, `integration` and `spacing` that do not need a minute."""

import math

import pytest
import torch

from mnemos.consolidation.letting_go import answered
from mnemos.studies import arbitrary_memories as shared
from mnemos.studies import independence, integration, lesion, spacing


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def filled(count: int = 400, strength: float = 0.5) -> tuple[shared.Episodes, shared.Memories]:
    episodes, memories = shared.fast_store(0), shared.arbitrary(count, generator())
    episodes.write(*memories, strength=torch.full((count,), strength))
    return episodes, memories


def test_a_trace_fades_by_its_time_constant_and_goes_when_nothing_is_left() -> None:
    episodes, _ = filled(3, strength=1.0)
    for _ in range(5):
        shared.fade(episodes, 2.5)
    assert episodes.traces().strength.tolist() == pytest.approx([math.exp(-2)] * 3, rel=1e-5)
    for _ in range(5):
        shared.fade(episodes, 2.5)
    assert not len(episodes)


def test_what_is_reinstated_is_a_matter_of_strength_and_deletes_nothing() -> None:
    episodes, memories = filled()
    now = shared.reinstated(episodes, generator())
    assert len(now) / 400 == pytest.approx(0.5, abs=0.07)
    assert len(episodes) == 400
    right = shared.right(shared.together(shared.slow_network(0), now), memories)
    assert right["store_only"].float().mean() == pytest.approx(0.5 + 0.5 * shared.CHANCE, abs=0.07)
    assert right["network_only"].float().mean() < 3 * shared.CHANCE


def test_both_lose_nothing_of_what_either_knows_if_the_network_does_not_guess() -> None:
    """It is asked where the store does not know the cue, and outvoted where it does."""
    episodes, memories = filled(40, strength=1.0)
    network = shared.slow_network(0)
    episodes.store.delete(episodes.traces().ids[20:])
    right = shared.right(shared.together(network, episodes), memories)
    assert right["both"][:20].all()
    assert torch.equal(right["both"][20:], right["network_only"][20:])


def test_the_gaps_of_the_study_lesion_come_from_the_oldest_and_the_latest_days() -> None:
    rising, falling = [age / 19 for age in range(20)], [1 - age / 19 for age in range(20)]
    ages = {"store_only": falling, "network_only": rising, "both": [0.8] * 19 + [0.7]}
    flat = {column: [0.5] * 20 for column in ages}
    found = lesion.summary({str(steps): ages if steps in lesion.CLAIMED else flat for steps in lesion.STEPS})
    assert found["remote_less_recent_store_lesioned"] == pytest.approx(15 / 19)
    assert found["remote_less_recent_network_lesioned"] == pytest.approx(-15 / 19)
    assert found["intact_minimum"] == 0.7
    assert found["remote_less_recent"]["both"]["0"] == 0


def test_without_sleep_only_the_store_knows_and_the_latest_best(monkeypatch) -> None:
    monkeypatch.setattr(lesion, "DAYS", 6)
    found = [lesion.lived(seed, 0) for seed in range(2)]
    store = torch.stack([one["store_only"] for one in found]).mean(0)
    assert store[0] == 1  # the day itself
    assert store[-1] < 0.75
    assert torch.stack([one["network_only"] for one in found]).mean() < 3 * shared.CHANCE


def test_a_night_makes_independent_and_a_deletion_is_what_a_lesion_says(monkeypatch) -> None:
    monkeypatch.setattr(independence, "MEMORIES", 20)
    monkeypatch.setattr(independence, "CYCLES", 4)
    assert independence.deleted(3, slept=False) == (1.0, pytest.approx(0, abs=0.2))
    intact, left = independence.deleted(3, slept=True)
    life = independence.begun(3)
    life.night(independence.ARMS["all_kept"], 0, 3).run()
    assert life.columns(slice(20)) == {"store_only": 1.0, "network_only": left, "both": intact}
    assert left > 0.9


def test_what_is_let_go_is_counted(monkeypatch) -> None:
    monkeypatch.setattr(independence, "MEMORIES", 24)
    monkeypatch.setattr(independence, "CYCLES", 4)
    monkeypatch.setattr(independence, "LATER", 1)
    found = independence.lived(0, independence.Arm(answered, dreams=True))
    assert found["left"]["0"] == 1
    assert found["left"]["4"] == pytest.approx(independence.ROWS / 24)
    assert 0 <= found["let_go_answered"]["4"] <= 1
    assert list(found["days_later"]) == ["0", "1"]


def test_dreams_are_the_answers_of_the_network_as_it_was() -> None:
    network = shared.slow_network(0)
    source = independence.dreamed(network)
    inputs, targets = source(5, generator())
    torch.testing.assert_close(targets, network(inputs).softmax(1).detach())
    torch.nn.init.zeros_(network[2].weight)
    torch.testing.assert_close(source(5, generator())[1], targets)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shuffled", [False, True])
def test_nothing_in_the_store_says_that_c_follows_a(whole: bool, shuffled: bool) -> None:
    episodes = integration.lived(whole, shuffled)
    everything = episodes.get(episodes.traces().ids)
    cues, answers = everything.inputs.argmax(1), everything.targets
    kinds = torch.stack([cues, answers]) // integration.TRIADS
    assert (kinds.diff(dim=0).abs() < 2).all()
    triads = (cues - answers) % integration.TRIADS
    assert triads.any().item() is shuffled


def test_chains_integrate_what_layers_alone_do_not(monkeypatch) -> None:
    """And the store, read again, knew it all along."""
    monkeypatch.setattr(integration, "ASKED_AT", (0, 40))
    plain, chains = (
        integration.slept(0, integration.ARMS[name], False) for name in ("layers", "layers_chained")
    )
    assert plain["ab"]["40"]["network_only"] > 0.9
    assert plain["ac"]["40"]["network_only"] < 0.4
    assert chains["ac"]["40"]["network_only"] > 0.8
    assert plain["ac"]["0"]["store_only"] == pytest.approx(integration.CHANCE)
    assert plain["ac_store_read_again"]["0"]["store_only"] == 1


def test_all_gaps_have_six_presentations_and_the_same_last_one() -> None:
    met: dict[int, list[int]] = {item: [] for item in range(len(spacing.GAPS) * spacing.ITEMS)}
    for day in range(spacing.LAST + spacing.DELAYS[-1] + 1):
        for lot in spacing.presented(day):
            for item in lot.tolist():
                met[item].append(day)
    for item, days in met.items():
        gap = spacing.GAPS[item // spacing.ITEMS]
        assert days == [spacing.LAST - gap * before for before in range(5, -1, -1)]


def test_what_either_system_foresees_is_no_surprise() -> None:
    episodes, memories = filled(20, strength=1.0)
    network = shared.slow_network(0)
    assert spacing.surprise(memories, network, episodes).max() < 1e-6
    new = shared.arbitrary(50, torch.Generator().manual_seed(2))
    known = network(new.cues).softmax(1).gather(1, new.responses[:, None])[:, 0]
    surprise = spacing.surprise(new, network, shared.fast_store(0))
    torch.testing.assert_close(surprise, (1 - shared.CHANCE) * (1 - known))  # an empty store knows nothing


def test_signs_by_lot() -> None:
    assert spacing.by_chance(torch.ones(20, dtype=torch.float64)) < 1e-3
    assert spacing.by_chance(torch.tensor([1.0, -1.0] * 10, dtype=torch.float64)) == 1
    few = torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64)
    assert spacing.by_chance(few) == pytest.approx(2 / 8, abs=0.02)


def test_the_figures_are_drawn_from_what_was_measured() -> None:
    ages = {column: [0.5] * 20 for column in shared.COLUMNS}
    measured = lesion.summary({str(steps): ages for steps in lesion.STEPS})
    assert len(lesion.draw(measured).axes) == 2
    steps = {str(step): dict.fromkeys(shared.COLUMNS, 0.5) for step in integration.ASKED_AT}
    arms = {f"{name}{end}": {"ac": steps} for name in integration.ARMS for end in ("", "_shuffled")}
    [axes] = integration.draw({"chance": 0.05, "arms": arms}).axes
    assert [line.get_ydata()[0] for line in axes.lines[1:]] == [50] * 8
    by_delay = {str(delay): {"both": [0.1, 0.2, 0.3]} for delay in spacing.DELAYS}
    both = {arm: {str(step): {"answered": by_delay} for step in spacing.STEPS} for arm in spacing.GATING}
    panels = spacing.draw({"arms": both}).axes
    assert [line.get_ydata()[-1] for line in panels[0].lines] == pytest.approx([10, 20, 30])
    cycles = {str(cycle): 0.5 for cycle in range(11)}
    curves = dict.fromkeys((*shared.COLUMNS, "left", "days_later"), cycles)
    figure = independence.draw({"chance": 0.05, "arms": dict.fromkeys(independence.ARMS, curves)})
    assert [len(panel.lines) for panel in figure.axes] == [3, 4, 4]
