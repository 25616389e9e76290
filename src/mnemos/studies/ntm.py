"""The Neural Turing Machine learns to copy, and copies what is longer than all that it was taught with.

Graves, Wayne & Danihelka 2014, section 4.1, with a feed-forward controller. An LSTM is the control. The short
form has vectors of 4 bits, sequences of up to 8, and 64 slots: more than twice as many as the longest
sequence has vectors, since some heads go on writing while the answer is given, and come round. The full form
is the paper's. Five networks are trained, each from a seed of its own, and all are shown.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mnemos.memories.ntm import NTM
from mnemos.progress import Advance, between
from mnemos.studies.algorithms import Control, draw_weights, teach, tried, weights_over, with_controller
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.algorithms import Copy

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

NETWORKS = 5


class Form(NamedTuple):
    """A form of the study."""

    task: Copy
    slots: int
    width: int
    hidden_size: int  # of the controller
    steps: int
    control_hidden_size: int
    control_steps: int
    lengths: tuple[int, ...]  # at which errors are measured
    allowed: Mapping[int, float]  # the error at some of them, up to which a network has learned to copy
    beyond: int  # the length at which the control is to have failed


SHORT = Form(Copy(4, (1, 8)), 64, 8, 48, 1500, 128, 2000, (4, 8, 12, 16, 20, 24, 28), {8: 0.0, 24: 0.01}, 24)
FULL = Form(
    Copy(8, (1, 20)), 128, 20, 100, 2500, 256, 10_000, (10, 20, 30, 40, 80, 120), {40: 0.005, 120: 0.05}, 40
)


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    form = FULL if full else SHORT
    machines, controls, rates, bits = [], [], [], []
    shown: dict[str, Any] = {}
    for number in range(NETWORKS):
        start, one = 100 * seed + number, 1 / NETWORKS
        here = between(advance, number * one, (number + 0.8) * one)
        torch.manual_seed(start)
        machine = with_controller(form.task, NTM(form.hidden_size, form.slots, form.width))
        rates.append(teach(machine, form.task, form.steps, learning_rate=1e-2, seed=start, advance=here))
        machines.append(_errors(machine, form, start))
        bits.append(tried(machine, form.task, 200, start)[1] / math.log(2))
        if not shown and _learned(machines[-1], bits[-1], form):
            longer = replace(form.task, lengths=(form.beyond, form.beyond))
            shown = weights_over(machine, longer.batch(1, torch.Generator().manual_seed(start)))
        control = Control(form.task, form.control_hidden_size)
        here = between(advance, (number + 0.8) * one, (number + 1) * one)
        teach(control, form.task, form.control_steps, learning_rate=3e-3, seed=start, advance=here)
        controls.append(_errors(control, form, start))
    return {
        "longest_taught": form.task.lengths[1],
        "networks": NETWORKS,
        "networks_that_learned": sum(_learned(*found, form) for found in zip(machines, bits, strict=True)),
        "bits_per_bit": bits,
        "error_beyond": median(errors[str(form.beyond)] for errors in machines),
        "lstm_error_beyond": min(errors[str(form.beyond)] for errors in controls),
        "beyond": form.beyond,
        "errors": machines,
        "lstm_errors": controls,
        "training_steps_per_second": mean(rates),
        **shown,
    }


def _errors(network: torch.nn.Module, form: Form, seed: int) -> dict[str, float]:
    """The share of wrong bits by length."""
    tasks = {str(length): replace(form.task, lengths=(length, length)) for length in form.lengths}
    return {length: tried(network, task, 100, seed)[0] for length, task in tasks.items()}


def _learned(errors: Mapping[str, float], bits_per_bit: float, form: Form) -> bool:
    return bits_per_bit < 0.01 and all(errors[str(at)] <= most for at, most in form.allowed.items())


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """The error by length, beside where the heads wrote and read in one long copy."""
    from mnemos.report.drawing import FAINT, WITH, WITHOUT, curve, drawing

    with drawing(height=3.1, columns=3) as (figure, [lines, *maps]):
        lines.axvline(measured["longest_taught"], color=FAINT, linewidth=1.2)
        for name, colour, text in (("lstm_errors", WITHOUT, "LSTM"), ("errors", WITH, "NTM")):
            by_last = sorted(measured[name], key=lambda errors: list(errors.values())[-1])
            for place, errors in enumerate(by_last):
                curve(lines, errors, text if place == len(by_last) // 2 else "", colour, linewidth=1.2)
        lines.set_xlabel("length")
        lines.set_ylabel("wrong bits, %")
        lines.set_title(f"taught with up to {measured['longest_taught']}")
        draw_weights(maps, measured)  # where no network has learned there is nothing to show
    return figure


STUDY = Study(
    name="ntm",
    title="A Neural Turing Machine copies sequences longer than it was taught (Graves et al. 2014)",
    measure=measure,
    thresholds={
        "networks_that_learned": Threshold(">=", 3),
        "error_beyond": Threshold("<", 0.01),
        "lstm_error_beyond": Threshold(">", 0.2),
    },
    paper=[
        Figure(
            "training lengths, bits of a vector, slots x width", "1 to 20, 8, 128 x 20", "Graves et al. 2014"
        ),
        Figure("errors at length 30 and 50", "near none", "Graves et al. 2014, Figure 4"),
        Figure("errors at length 120", "one vector copied twice", "Graves et al. 2014, Figure 4"),
        Figure("LSTM beyond length 20", "fails", "Graves et al. 2014, Figure 5"),
    ],
    draw=draw,
)
