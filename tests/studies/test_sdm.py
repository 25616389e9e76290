"""The parts of the study `sdm` that do not need its minutes."""

import pytest
import torch

from mnemos.memories import SparseDistributed
from mnemos.studies import sdm


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"0": 1.0, "100": 0.75, "200": 0.25, "300": 0.0}, 150),
        ({"0": 1.0, "100": 0.5, "200": 0.0}, 100),
        ({"0": 1.0, "100": 0.9}, 100),
        ({"0": 0.2, "100": 0.0}, 0),
    ],
)
def test_the_crossing_lies_between_two_measured_distances(shares, expected) -> None:
    assert sdm._crossing(shares) == pytest.approx(expected)


def test_probes_near_a_word_find_it_and_far_ones_do_not() -> None:
    memory = SparseDistributed(256, locations=5000, radius=108)
    words = torch.randn(1, 20, 256, generator=torch.Generator().manual_seed(0)).sign()
    state = memory.write(memory.initial_state(1), words, words)
    generator = torch.Generator().manual_seed(1)
    assert sdm._converged(memory, state, words, 20, 15, generator) == (1.0, 0.0)
    found, end = sdm._converged(memory, state, words, 120, 15, generator)
    assert found == 0
    assert end == pytest.approx(128, abs=25)


def test_the_figure_is_drawn_from_what_was_measured() -> None:
    measured = {
        "words": 1000,
        "locations": 100_000,
        "converged": {"0": 1.0, "200": 0.7, "300": 0.0},
        "converged_with_ten_times_the_words": {"0": 0.6, "100": 0.0},
    }
    [axes] = sdm.draw(measured).axes
    curves = [
        line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 2 or line.get_marker() == "o"
    ]
    assert [list(curve) for curve in curves] == [[100, 70, 0], [60, 0]]
