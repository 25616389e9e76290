"""The parts of the study `ntm` that do not need its minutes."""

import torch

from mnemos.memories import NTM
from mnemos.progress import silent
from mnemos.studies import ntm
from mnemos.studies.algorithms import Control, teach, tried, weights_over, with_controller
from mnemos.tasks.algorithms import Copy

TASK = Copy(2, (1, 2))


def test_a_network_is_taught_and_tried_on_what_it_has_not_seen() -> None:
    torch.manual_seed(0)
    machine = with_controller(TASK, NTM(16, slots=4, width=4))
    error, loss = tried(machine, TASK, 100, seed=0)
    assert (error, loss) == tried(machine, TASK, 100, seed=0)
    assert 0.2 < error < 0.8
    assert teach(machine, TASK, 60, learning_rate=1e-2, seed=0, advance=silent) > 0
    assert tried(machine, TASK, 100, seed=0)[1] < loss


def test_the_control_has_no_memory_but_its_own() -> None:
    control = Control(TASK, 8)
    outputs, _ = control(torch.randn(3, 5, TASK.input_size))
    assert outputs.shape == (3, 5, TASK.output_size)


def test_a_network_has_learned_if_it_copies_as_the_form_allows() -> None:
    errors = {"8": 0.0, "24": 0.009}
    assert ntm._learned(errors, 0.001, ntm.SHORT)
    assert not ntm._learned(errors, 0.02, ntm.SHORT)
    assert not ntm._learned(errors | {"8": 0.001}, 0.001, ntm.SHORT)
    assert not ntm._learned(errors | {"24": 0.02}, 0.001, ntm.SHORT)


def test_the_figure_shows_errors_and_where_the_heads_were() -> None:
    machine = with_controller(TASK, NTM(4, slots=3, width=2))
    shown = weights_over(machine, Copy(2, (4, 4)).batch(1, torch.Generator().manual_seed(0)))
    assert len(shown["read_weights"]) == len(shown["write_weights"]) == 9
    assert all(abs(sum(weights) - 1) < 0.01 for weights in shown["write_weights"])
    measured = {
        "longest_taught": 8,
        "errors": [{"8": 0.0, "24": 0.01}, {"8": 0.0, "24": 0.02}],
        "lstm_errors": [{"8": 0.0, "24": 0.4}, {"8": 0.1, "24": 0.5}],
    }
    lines, writing, reading = ntm.draw(measured | shown).axes
    assert len(lines.lines) == 5
    assert [axes.images[0].get_array().shape for axes in (writing, reading)] == [(3, 9), (3, 9)]
    assert not ntm.draw(measured).axes[1].images  # nothing to show where no network has learned
