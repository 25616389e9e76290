"""The studies of segment memories, at sizes at which nothing is learned."""

import pytest

from mnemos.progress import silent
from mnemos.studies import compressive, memorizing, recurrent_memory


def test_the_compressive_study_measures_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    some = ("convolution", "transformer_xl")
    monkeypatch.setattr(compressive, "ARMS", {name: compressive.ARMS[name] for name in some})
    measured = compressive.measure_at(window=4, lag=11, steps=3, seed=0, advance=silent)
    assert set(compressive.STUDY.thresholds) <= set(measured)
    assert measured["gradient_into_the_network"] == 0
    assert set(measured["accuracies"]) == set(some)
    assert compressive.STUDY.figure(measured).axes


def test_the_memorizing_study_measures_and_draws() -> None:
    measured = memorizing.measure_at((128, 256), slots=64, more=128, steps=4, seed=0, advance=silent)
    assert set(memorizing.STUDY.thresholds) <= set(measured)
    assert measured["full_attention_difference"] < 1e-5
    assert memorizing.STUDY.figure(measured).axes


def test_the_recurrent_study_measures_and_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent_memory, "ROWS", 8)
    monkeypatch.setattr(recurrent_memory, "TOKENS", 64)
    lessons = ((2, 0), (2, 1))
    measured = recurrent_memory.measure_at(lessons, (1, 4), (2, 4), steps=2, seed=0, advance=silent)
    assert set(recurrent_memory.STUDY.thresholds) <= set(measured)
    assert set(measured["by_pairs"]) == set(recurrent_memory.ARMS)
    assert recurrent_memory.STUDY.figure(measured).axes
