"""The parts of the study `dnc` that do not need its minutes."""

import torch

from mnemos.studies import dnc
from mnemos.studies.algorithms import weights_over


def test_the_parts_do_what_is_known_exactly() -> None:
    assert dnc._links_error(seed=3) == 0
    assert dnc._allocation_error() < 1e-5


def test_a_network_learns_from_its_first_steps() -> None:
    torch.manual_seed(0)
    network = dnc._network(dnc.RECALLED, slots=8, width=16)
    generator = torch.Generator().manual_seed(0)
    losses: list[float] = []
    dnc._teach(
        network, dnc.RECALLED, 12, generator, lambda share, what: losses.append(float(what.split()[-1]))
    )
    assert losses[-1] < losses[0]
    assert 0 <= dnc._error(network, dnc.RECALLED, generator) <= 1


def test_the_figure_is_drawn_from_what_was_measured() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = dnc._network(dnc.REPEATED, slots=5, width=4)
    shown = weights_over(network, dnc.LONGER.batch(1, generator))
    assert {len(step) for step in shown["read_weights"]} == {5}
    figure = dnc.draw({"repeat_copy_error_by_length": {"1": 0.0, "8": 0.25}, **shown})
    line, writing, reading = figure.axes
    assert list(line.lines[-1].get_ydata()) == [0, 25]
    assert writing.images[0].get_array().shape == reading.images[0].get_array().shape
    assert writing.images[0].get_array().shape == (5, len(shown["write_weights"]))
