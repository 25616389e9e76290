"""The parts of the studies `mqar` and `fast-weights` that do not need their minutes."""

import pytest
import torch

from mnemos.models import hybrid
from mnemos.progress import silent
from mnemos.studies import fast_weights, mqar, titans, ttt


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(mqar, "TOKENS", 64)
    monkeypatch.setattr(mqar, "CHECK", 4)


def test_the_next_size_comes_when_one_is_learned(small, monkeypatch):
    torch.manual_seed(0)
    network = hybrid(8, "delta-rule", width=8, heads=1, context=16)
    asked = []

    def right(network, task, seed, rows=128):
        asked.append(task.length)
        return {16: 0.95, 32: 0.5, 64: 0.2}[task.length]

    monkeypatch.setattr(mqar, "answered", right)
    monkeypatch.setattr(mqar, "VOCABULARY", 32)
    network = hybrid(32, "delta-rule", width=8, heads=1, context=64)
    steps, shares = mqar.learn(network, 0, mqar.tasks_of(mqar.SIZES), 9, silent)
    assert steps == 9
    assert asked == [64, 16, 64, 32, 64]  # the last size for the record, the present one for progress
    assert shares == {"4": 0.2, "8": 0.2, "9": 0.2}


def test_unseen_sequences_are_the_same_each_time_and_not_those_learned_from():
    torch.manual_seed(0)
    network = hybrid(256, "attention", width=8, heads=1, context=16)
    task = mqar.MultiQueryRecall(256, 16, 2)
    assert mqar.answered(network, task, 3) == mqar.answered(network, task, 3)
    assert mqar.answered(network, task, 3) < 0.2


def test_fast_weights_and_their_controls_differ_as_they_are_named():
    found = fast_weights.retrievers()
    batch = fast_weights.TASK.tokens(2, torch.Generator().manual_seed(0))
    for network in found.values():
        assert network(batch.inputs).shape == (2, 11, 37)
    assert found["20 wide, no fast weights"].memory.settling == 0
    assert isinstance(found["20 wide, not normalised"].memory.norm, torch.nn.Identity)
    assert isinstance(found["20 wide, one layer to read out"].readout, torch.nn.Linear)


def test_the_best_of_several_starts_counts_and_all_are_shown(monkeypatch):
    monkeypatch.setattr(fast_weights, "STEPS", 1)
    monkeypatch.setattr(fast_weights, "ROWS", 2)
    asked = []

    def right(network, seed, rows):
        asked.append((network, seed, rows))
        return len(asked) / 100

    monkeypatch.setattr(fast_weights, "_right", right)
    measured = fast_weights.measure(3, False, silent)
    assert {name: len(runs) for name, runs in measured["right"].items()} == {
        name: 3 if name in fast_weights.BEGUN_AGAIN else 1 for name in fast_weights.retrievers()
    }
    first, *others = [network for network, _, rows in asked if rows == 10_000]
    judged = [seed for _, seed, rows in asked if rows == 10_000]
    assert set(judged) == {fast_weights.TRIED + 3}
    best = max(measured["right"]["fast weights, 20 wide"], key=lambda run: run["1"])["1"]
    [network] = [asked[round(100 * best) - 1][0]]
    assert network in others
    assert network is not first
    assert measured.keys() >= fast_weights.STUDY.thresholds.keys()


def test_figures_are_drawn(tmp_path):
    from mnemos.report.drawing import save

    mixers = ("attention", *mqar.ERASING, mqar.SUM, mqar.STATE_SPACE)
    right = {name: {"100": 0.1, "200": 0.5 + 0.05 * number} for number, name in enumerate(mixers)}
    save(mqar.draw({"right": right, "pairs": 8}), tmp_path / "mqar.png")
    save(
        fast_weights.draw({"right": {name: [right["attention"]] for name in fast_weights.retrievers()}}),
        tmp_path / "fast.png",
    )


def test_the_study_of_titans_compares_every_kind_near_and_far(small):
    measured = titans.measure(0, True, silent, width=8, sizes=((8, 1), (16, 2)), steps=2)
    assert list(measured["last"]) == list(measured["untaught"]) == [*titans.KINDS, *titans.WIRINGS]
    assert all(0 <= share <= 1 for share in measured["untaught"].values())
    assert measured.keys() >= titans.STUDY.thresholds.keys()
    titans.draw(measured)


def test_the_study_of_test_time_training_holds_its_forms_to_one_another(small):
    measured = ttt.measure(0, False, silent, width=8, sizes=((8, 1), (16, 2)), steps=2)
    for name in ("dual_error", "dual_gradient_error", "linear_attention_error"):
        assert ttt.STUDY.thresholds[name].met(measured[name])
    assert measured["right"].keys() == ttt.mixers(8, 16).keys()
    assert measured.keys() >= ttt.STUDY.thresholds.keys()
    ttt.draw(measured)
