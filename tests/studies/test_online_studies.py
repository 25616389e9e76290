"""The parts of the studies `atlas` and `continuum` that do not need their minute."""

import math

import pytest
import torch

from mnemos.memories import ContinuumMemory
from mnemos.progress import silent
from mnemos.studies import atlas, atlas_muon, atlas_window, continuum


def test_what_features_hold_is_answered_and_no_more() -> None:
    generator = torch.Generator().manual_seed(0)
    assert [atlas.dimensions(3, degree) for degree in (1, 2, 3)] == [4, 9, 16]
    assert atlas._rank(3, 2, generator) == 9
    shares = atlas.settled(3, 1, [2, 8], 200, 4, generator, silent)
    assert shares["2"] > 0.95
    assert shares["8"] == pytest.approx(4 / 8, abs=0.1)


def test_a_pair_is_learned_wholly_at_a_rate_that_counts_the_length_of_its_features() -> None:
    memory = atlas._matrix(3, 2, 1)
    keys, values = torch.randn(1, 1, 3), torch.randn(1, 1, atlas.WIDTH)
    for rate, times in ((0.5 / atlas._length(2), 1.0), (0.5, 2.5)):
        told = torch.full((1, 1), rate)
        state = memory.write(memory.initial_state(1), keys, values, rate=told)
        torch.testing.assert_close(memory.read(state, keys).values, times * values)


def test_the_capacity_lies_between_two_numbers_of_pairs() -> None:
    assert atlas.crossing({"4": 1.0, "8": 0.8, "12": 0.4}) == pytest.approx(6)
    assert atlas.crossing({"4": 0.5, "8": 0.2}) == 4
    assert atlas.crossing({"4": 1.0, "8": 0.95}) == 8


def test_the_least_loss_has_no_excess_and_zeros_have_all_of_it() -> None:
    told = atlas_window.stream(2, 20, torch.Generator().manual_seed(0))
    memory = atlas_window.bare(atlas_window.SIZE, 1)
    state = memory.initial_state(2)
    torch.testing.assert_close(told.excess(memory, state), torch.ones(1, 2))
    best = torch.linalg.lstsq(told.keys, told.values).solution.unsqueeze(1)
    state = state._replace(changes=(torch.cat([torch.zeros(2, 1, 1, atlas_window.SIZE), best], dim=2),))
    torch.testing.assert_close(told.excess(memory, state), torch.zeros(1, 2), atol=1e-4, rtol=0)


def test_settings_are_chosen_on_streams_on_which_they_are_not_judged() -> None:
    assert atlas_window._judged(torch.tensor([[0.1, 0.7], [0.2, 0.0], [math.nan, 0.0]])) == pytest.approx(0.7)


def test_steps_without_relevance_are_as_if_they_had_not_been() -> None:
    found = atlas_window.pruning(0, 8, 2)
    assert found["pruned_difference"] <= 1e-6
    assert found["noise_learned_unpruned"] > 0.03


def test_the_study_of_atlas_measures_all_that_it_asks_for(monkeypatch) -> None:
    monkeypatch.setattr(atlas, "ONCE", (2, 4))
    monkeypatch.setattr(atlas_muon, "LENGTHS", (8, 16))
    monkeypatch.setattr(atlas_muon, "CHOSEN_AT", 16)
    for part in (atlas_muon, atlas_window):
        monkeypatch.setattr(part, "RATES", (0.125, 0.0625))
    measured = atlas.measure(0, False, silent, size=3, steps=4, repetitions=1, pairs=6)
    assert measured.keys() >= atlas.STUDY.thresholds.keys()
    assert set(measured["rare"]["muon"]) == {"8", "16"}
    for name in ("dimensions_error", "pruned_difference"):
        assert atlas.STUDY.thresholds[name].met(measured[name])
    assert len(atlas.draw(measured).axes) == 3


def test_a_block_is_taken_out_of_a_chain() -> None:
    memory = ContinuumMemory(4, key_size=4, periods=(1, 2), expansion=1)
    state = memory.write(memory.initial_state(1), torch.randn(1, 3, 4), torch.randn(1, 3, 4))
    without = continuum._without(state, [0])
    assert not any(change.any() for change in without.changes[0])
    assert not any(waiting.any() for waiting in without.pending[0])
    assert without.changes[1] is state.changes[1]
    assert without.position is state.position


def test_what_is_lost_is_taken_where_the_new_is_known() -> None:
    assert continuum.lost([0.2, 0.4], [0.5, 0.0]) == pytest.approx(0.36)
    assert math.isnan(continuum.lost([0.2, 0.4], [0.9, 0.8]))


def test_the_study_of_the_continuum_follows_every_chain() -> None:
    measured = continuum.measure(0, False, silent, streams=1, learned=2, told=1)
    assert measured.keys() >= continuum.STUDY.thresholds.keys()
    assert measured["a"].keys() == continuum.CHAINS.keys()
    assert measured["slow_share"] < measured["slow_share_begun_anew"]
    assert len(continuum.draw(measured).axes) == 3
