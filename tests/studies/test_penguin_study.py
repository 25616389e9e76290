"""The parts of the study `penguin`, with one network and a wider criterion."""

import copy

import pytest
import torch

from mnemos.studies import penguin


def test_what_is_told_of_the_penguin() -> None:
    domain = penguin.the_domain()
    assert [len(part.inputs) for part in domain] == [32, 2, 2]
    assert not (domain.old.items == penguin.PENGUIN).any()
    assert (domain.told.items == penguin.PENGUIN).all()


def test_focused_learning_is_quick_and_costs_what_was_known(monkeypatch) -> None:
    monkeypatch.setattr(penguin, "WITHIN", 0.25)
    domain = penguin.the_domain()
    torch.manual_seed(0)
    network = penguin._taught(domain.old)
    assert penguin._known(network, domain.old)
    focused, interleaved = (
        penguin._told(domain, copy.deepcopy(network), rows, presentations=200, seed=0) for rows in (0, 32)
    )
    assert focused.presentations <= interleaved.presentations <= 200
    for way in (focused, interleaved):
        assert way.told[200] < 0.1 * way.told[0]
        assert way.systems["told"]["store_only"] == way.systems["old"]["both"] == 0
        assert way.systems["untold"]["both"] == way.systems["untold"]["cortex_only"]
    assert focused.old[200] > 2 * interleaved.old[200]
    found = penguin._summary({"focused": [focused] * 2, "interleaved": [interleaved] * 2})
    assert found["increase_focused"] == pytest.approx(focused.increase)
    assert found["old"]["focused"] == pytest.approx(focused.old)
    assert len(penguin.STUDY.figure(found).axes) == 2
