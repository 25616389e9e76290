"""The parts of the study `ntm-tasks` that do not need its minutes."""

import math

import pytest
import torch

from mnemos.studies import ntm_tasks
from mnemos.tasks.algorithms import DynamicNGrams, RepeatCopy


def small(name: str) -> ntm_tasks.Part:
    """A part of the short form, taught for a moment."""
    return ntm_tasks.SHORT[name]._replace(slots=4, width=3, hidden_size=5, control_hidden_size=4, steps=2)


def test_all_networks_are_taught_judged_and_drawn(monkeypatch) -> None:
    monkeypatch.setattr(ntm_tasks, "SHORT", {name: small(name) for name in ntm_tasks.SHORT})
    monkeypatch.setattr(ntm_tasks, "ROWS", 20)
    monkeypatch.setattr(ntm_tasks, "NETWORKS", 2)
    outcome = ntm_tasks.STUDY.run(seed=0)
    for name, by_network in outcome.measured["found"].items():
        assert {"ntm", "lstm"} <= set(by_network)
        for network, all_judged in by_network.items():
            judged = all_judged[-1]
            assert len(all_judged) == (2 if network in ("ntm", "lstm") else 1)
            assert 0.2 < judged["error"] < 0.8
            assert 0.5 < judged["bits"] < 2
            assert all(0 < value < 2 for value in judged["curve"].values()), name
    assert not outcome.passed
    assert outcome.measured["taught"] == {"repeat_copy": 4, "recall": 6}
    assert len(ntm_tasks.STUDY.figure(outcome.measured).axes) == 6


def test_more_repeats_are_told_in_the_scale_of_those_taught() -> None:
    taught = RepeatCopy(2, (1, 3), (1, 4))
    longer = ntm_tasks._by_repeats(taught, [8])[8]
    batch = longer.batch(1, torch.Generator().manual_seed(0))
    assert batch.inputs[0, 3, -1].item() == pytest.approx(taught.scaled(8))
    assert batch.scored.sum() == 3 * 8 + 1


def test_costs_by_place_average_to_the_cost() -> None:
    task = DynamicNGrams(2, 22)
    batch = task.batch(50, torch.Generator().manual_seed(0))
    costs = ntm_tasks._costs(task.optimal(batch), batch)
    assert list(costs) == [str(place) for place in range(2, 21, 2)]
    mean = task.loss(task.optimal(batch), batch).item() / math.log(2)
    assert sum(costs.values()) / len(costs) == pytest.approx(mean, rel=1e-5)
    assert costs["2"] > costs["20"]  # what was seen tells what comes


def test_the_network_of_least_loss_counts() -> None:
    judged = [
        {"loss_to_choose_by": loss, "error": 0.1, "bits": loss, "curve": {"1": loss}} for loss in (3.0, 1.0)
    ]
    found = {name: {"ntm": judged, "lstm": judged[:1], "shorter": judged[:1]} for name in ntm_tasks.SHOWN}
    summary = ntm_tasks._summary(found, {"repeat_copy": "1", "recall": "1"})
    assert summary["sort_to_lstm"] == summary["recall_error_beyond_to_lstm"] == pytest.approx(1 / 3)


def test_the_figure_has_a_panel_for_each_task_and_two_maps() -> None:
    judged = {"loss_to_choose_by": 0.5, "error": 0.1, "bits": 0.5, "curve": {"1": 0.0, "4": 0.25}}
    found = {name: {"ntm": [judged], "lstm": [judged]} for name in ntm_tasks.SHOWN}
    found["n_grams"]["best"] = [judged]
    maps = {"write_weights": [[1.0, 0.0]] * 3, "read_weights": [[0.0, 1.0]] * 3}
    figure = ntm_tasks.draw({"found": found, "taught": {"repeat_copy": 4, "recall": 5}, **maps})
    assert [len(axes.lines) for axes in figure.axes] == [3, 3, 0, 3, 2, 0]
    assert list(figure.axes[0].lines[-1].get_ydata()) == [0, 25]  # in per cent
    assert figure.axes[2].images[0].get_array().shape == (2, 3)
