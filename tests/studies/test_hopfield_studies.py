"""The parts of the studies `hopfield` and `modern-hopfield` that do not need their minutes."""

import pytest
import torch

from mnemos.ops.hopfield import signs, synchronous
from mnemos.studies import hopfield, modern_hopfield


def test_the_formula_of_one_step_is_that_of_theory_for_many_units() -> None:
    assert hopfield.one_step_error(138_000, 1_000_000) == pytest.approx(0.00355, abs=1e-5)
    assert hopfield.one_step_error(50, 1_000) < 4e-6


def test_the_formula_of_one_step_holds_for_few_units() -> None:
    patterns = signs(torch.randn(400, 30, 100, generator=torch.Generator().manual_seed(0)))
    turned = synchronous(patterns.mT @ patterns / 100, patterns)
    measured = (turned != patterns).double().mean().item()  # of 1,200,000 units
    assert measured == pytest.approx(hopfield.one_step_error(30, 100), rel=0.02)


def test_the_crossing_is_where_half_are_found() -> None:
    assert modern_hopfield._crossing({"10": 1.0, "100": 0.75, "1000": 0.25}) == pytest.approx(10**2.5)
    assert modern_hopfield._crossing({"10": 1.0, "100": 0.9}) == 100  # more than were tried
    assert modern_hopfield._crossing({"10": 0.2, "100": 0.1}) == 10


def test_the_classical_networks_figure_shows_both_sizes_and_all_rules() -> None:
    curve = {"0.1": 0.0, "0.2": 0.3}
    rules = dict.fromkeys(hopfield.RULES, curve)
    measured = {
        "final_error": {"500": curve, "1000": curve},
        "one_step_formula": curve,
        "one_step_error": curve,
        "stable": rules,
        "recovered": rules,
    }
    left, right = hopfield.draw(measured).axes
    assert [text.get_text() for text in left.texts][:3] == ["0.138", "500 units", "1,000 units"]
    assert len(right.lines) == 6


def test_the_dense_networks_figure_shows_every_width_and_separation() -> None:
    shares = {"10": 1.0, "1000": 0.4}
    measured = {
        "retrieved": {str(width): shares for width in modern_hopfield.WIDTHS},
        "binary": dict.fromkeys(("hebb", "square", "cube", "fourth", "exponential", "modern"), shares),
    }
    left, right = modern_hopfield.draw(measured).axes
    assert [text.get_text() for text in left.texts] == ["16", "24", "32", "48", "64"]
    assert [text.get_text() for text in right.texts] == ["classical", "cube", "fourth power", "exponential"]
