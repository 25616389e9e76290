"""The Neural Turing Machine on the four tasks beside copying: a loop, a look-up, a count, and an order.

Graves, Wayne & Danihelka 2014, sections 4.2 to 4.5, scaled down, with a feed-forward controller. Beside each
network an LSTM is taught the same task with as many sequences. Three of both are taught each task, from seeds
of their own; the one of least loss on further sequences of that kind counts, and all are shown. Repeat copy
and associative recall are tried with more repeats and more items than were taught. What is sorted, and the
next bit of an n-gram, are judged by what they cost, the cross-entropy in bits a bit; the next bit also beside
the best that can be predicted.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.ntm import NTM
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.progress import Advance, between
from mnemos.studies.algorithms import Control, draw_weights, teach, weights_over, with_controller
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.algorithms import DynamicNGrams, PrioritySort, RepeatCopy
from mnemos.tasks.recall import AssociativeRecall
from mnemos.tasks.task import Batch, BitTask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

NETWORKS = 3  # of either kind, for each task
ROWS = 300  # sequences that a network is judged by
STRETCHES = 10  # of an answer, at most, whose costs are told apart


class Shown(NamedTuple):
    """A task in the figure."""

    title: str
    across: str
    sized: bool  # errors by sizes; else costs by the places of an answer


SHOWN = {
    "repeat_copy": Shown("repeat copy", "repeats", True),
    "recall": Shown("associative recall", "items", True),
    "n_grams": Shown("dynamic n-grams", "place of the bit", False),
    "sort": Shown("priority sort", "rank of the vector", False),
}


class Part(NamedTuple):
    """A task as it is taught, what lies beyond, and the sizes of what it is taught to."""

    task: BitTask
    steps: int
    slots: int
    width: int
    read_heads: int  # beside one that writes
    hidden_size: int = 48  # of the controller
    control_hidden_size: int = 128
    by_size: Mapping[int, BitTask] = {}  # easier and harder; empty where places of an answer are told apart
    taught: int = 0  # the greatest size that is taught
    beyond: int = 0  # the greater size that an LSTM is compared at


def _by_repeats(task: RepeatCopy, numbers: Iterable[int]) -> dict[int, BitTask]:
    longest = replace(task, lengths=(task.lengths[1],) * 2, scaled_over=task.repeats)
    return {number: replace(longest, repeats=(number, number)) for number in numbers}


def _by_items(task: AssociativeRecall, numbers: Iterable[int]) -> dict[int, BitTask]:
    return {number: replace(task, items=(number, number)) for number in numbers}


COPIED, RECALLED = RepeatCopy(4, (1, 4), (1, 4)), AssociativeRecall(6, 1, (2, 6))
SHORT = {
    "repeat_copy": Part(
        COPIED, 2000, 64, 12, read_heads=2, by_size=_by_repeats(COPIED, range(1, 9)), taught=4, beyond=6
    ),
    "recall": Part(
        RECALLED, 1000, 64, 12, read_heads=2, by_size=_by_items(RECALLED, range(2, 13)), taught=6, beyond=12
    ),
    "n_grams": Part(DynamicNGrams(2, 42), 800, 64, 12, read_heads=2),
    "sort": Part(PrioritySort(4, (8, 8), 6), 2000, 32, 12, read_heads=4),
}
COPIED_LONG, RECALLED_LONG = RepeatCopy(), AssociativeRecall()
FULL = {
    "repeat_copy": Part(
        COPIED_LONG,
        10_000,
        slots=128,
        width=20,
        read_heads=2,
        hidden_size=100,
        control_hidden_size=512,
        by_size=_by_repeats(COPIED_LONG, range(1, 21)),
        taught=10,
        beyond=15,
    ),
    "recall": Part(
        RECALLED_LONG,
        10_000,
        slots=128,
        width=20,
        read_heads=4,
        hidden_size=256,
        control_hidden_size=256,
        by_size=_by_items(RECALLED_LONG, range(2, 21, 2)),
        taught=6,
        beyond=20,
    ),
    "n_grams": Part(DynamicNGrams(), 10_000, 128, 20, read_heads=1, hidden_size=100),
    "sort": Part(PrioritySort(), 10_000, 128, 20, read_heads=8, hidden_size=512),
}


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    parts = FULL if full else SHORT
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    shown: dict[str, Any] = {}
    for number, (name, part) in enumerate(parts.items()):
        found[name] = {"ntm": [], "lstm": []}
        for restart in range(NETWORKS):
            start, done = 100 * seed + restart, (number * NETWORKS + restart) / (len(parts) * NETWORKS)
            here = between(advance, done, done + 1 / (len(parts) * NETWORKS))
            machine, control = _taught(part, start, here)
            for network, answer in (("ntm", _answer_of(machine)), ("lstm", _answer_of(control))):
                found[name][network].append(_judged(answer, part, seed))
            if isinstance(part.task, RepeatCopy) and _counts(found[name]["ntm"]) is found[name]["ntm"][-1]:
                hardest = list(part.by_size.values())[-1]
                shown = weights_over(machine, hardest.batch(1, torch.Generator().manual_seed(seed)))
        if isinstance(part.task, DynamicNGrams):
            shorter = replace(part.task, context=part.task.context - 1)
            found[name]["best"] = [_judged(part.task.optimal, part, seed)]
            found[name]["shorter"] = [_judged(shorter.optimal, part, seed)]
    taught = {name: part.taught for name, part in parts.items() if part.by_size}
    beyond = {name: str(part.beyond) for name, part in parts.items() if part.by_size}
    return {**_summary(found, beyond), "found": found, "taught": taught, "beyond": beyond, **shown}


def _counts(judged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The network that counts, of all that were taught the same."""
    return min(judged, key=lambda one: one["loss_to_choose_by"])


def _taught(part: Part, seed: int, advance: Advance) -> tuple[MemoryAugmented, Control]:
    """A network with a memory, and its control after as many sequences."""
    torch.manual_seed(seed)
    memory = NTM(part.hidden_size, part.slots, part.width, read_heads=part.read_heads)
    machine, control = with_controller(part.task, memory), Control(part.task, part.control_hidden_size)
    for network, rate, inertia, here in (
        (machine, 1e-2, 0.99, between(advance, 0.0, 0.8)),
        (control, 3e-3, 0.999, between(advance, 0.8, 1.0)),
    ):
        teach(network, part.task, part.steps, learning_rate=rate, inertia=inertia, seed=seed, advance=here)
    return machine, control


def _answer_of(network: nn.Module) -> Callable[[Batch], Tensor]:
    return lambda batch: network(batch.inputs)[0]


@torch.no_grad()
def _judged(answer: Callable[[Batch], Tensor], part: Part, seed: int) -> dict[str, Any]:
    """Error and cost as taught, and a curve: errors over sizes, or costs over the places of the answer."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    chosen_by, batch = (part.task.batch(ROWS, generator) for _ in range(2))
    outputs = answer(batch)
    curve = {} if part.by_size else _costs(outputs, batch)
    for size, task in part.by_size.items():
        sized = task.batch(ROWS, generator)
        curve[str(size)] = task.error(answer(sized), sized)
    bits = part.task.loss(outputs, batch).item() / math.log(2)
    return {
        "loss_to_choose_by": part.task.loss(answer(chosen_by), chosen_by).item(),
        "error": part.task.error(outputs, batch),
        "bits": bits,
        "curve": curve,
    }


def _costs(outputs: Tensor, batch: Batch) -> dict[str, float]:
    """What a bit costs, in bits, by its place in the answer: means of stretches, by their last places."""
    costs = functional.binary_cross_entropy_with_logits(outputs, batch.targets, reduction="none")
    by_place = costs[:, batch.scored[0]].mean((0, 2)) / math.log(2)  # all answers stand at the same places
    stretches = by_place.tensor_split(min(STRETCHES, len(by_place)))
    ends = accumulate(len(stretch) for stretch in stretches)
    return {str(end): stretch.mean().item() for end, stretch in zip(ends, stretches, strict=True)}


def _summary(
    found: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]], beyond: Mapping[str, str]
) -> dict[str, float]:
    """Numbers for each task and network: the errors as taught and beyond, or what a bit costs."""
    measured: dict[str, float] = {}
    for name, by_network in found.items():
        for network, all_judged in by_network.items():
            judged = _counts(all_judged)
            if name in beyond:
                measured[f"{name}_{network}_error"] = judged["error"]
                measured[f"{name}_{network}_error_beyond"] = judged["curve"][beyond[name]]
            else:
                measured[f"{name}_{network}_bits"] = judged["bits"]
    for name in beyond:
        for at in ("error", "error_beyond"):
            ours, theirs = (measured[f"{name}_{network}_{at}"] for network in ("ntm", "lstm"))
            measured[f"{name}_{at}_to_lstm"] = ours / theirs if theirs else math.nan
    measured["n_grams_to_shorter"] = measured["n_grams_ntm_bits"] / measured["n_grams_shorter_bits"]
    measured["sort_to_lstm"] = measured["sort_ntm_bits"] / measured["sort_lstm_bits"]
    return measured


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Each task by its size or the places of its answer; and where one repeat copy was written and read."""
    from mnemos.report.drawing import FAINT, drawing

    with drawing(height=4.4, columns=3, rows=2) as (figure, axes):
        panels = [axes[place] for place in (0, 1, 3, 4)]
        for panel, (name, by_network) in zip(panels, measured["found"].items(), strict=True):
            if name in measured["taught"]:
                panel.axvline(measured["taught"][name], color=FAINT, linewidth=1.2)
            _draw_curves(panel, name, by_network)
        maps = [axes[2], axes[5]]
        draw_weights(maps, measured)
        for heat_map in maps:
            heat_map.set_xlabel("step of a repeat copy")
    return figure


def _draw_curves(axes: "Axes", name: str, by_network: Mapping[str, Any]) -> None:
    from mnemos.report.drawing import TUNED, WITH, WITHOUT, label

    title, across, sized = SHOWN[name]
    for network, text, colour in (("lstm", "LSTM", WITHOUT), ("best", "best", TUNED), ("ntm", "NTM", WITH)):
        for judged in by_network.get(network, ()):
            curve, counts = judged["curve"], judged is _counts(by_network[network])
            sizes, values = [int(size) for size in curve], [100**sized * value for value in curve.values()]
            axes.plot(
                sizes, values, color=colour, linewidth=1.6 if counts else 0.7, marker="o", markersize=2.5
            )
            if counts:
                label(axes, sizes[-1], values[-1], text, colour)
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel("wrong bits, %" if sized else "bits a bit")


STUDY = Study(
    name="ntm-tasks",
    title="A Neural Turing Machine loops, looks up, counts and sorts (Graves et al. 2014)",
    measure=measure,
    # The paper has curves and no figures to reach. Held to is what it finds: that the network learns to
    # repeat and to sort from fewer sequences than an LSTM, recalls from more items than it was taught with,
    # and uses the whole context of an n-gram. With more repeats than taught the paper's network loses count.
    thresholds={
        "repeat_copy_ntm_error": Threshold("<", 0.05),
        "repeat_copy_error_to_lstm": Threshold("<", 0.5),
        "recall_ntm_error": Threshold("<", 0.05),
        "recall_error_beyond_to_lstm": Threshold("<", 0.5),
        "n_grams_to_shorter": Threshold("<", 1.0),
        "sort_to_lstm": Threshold("<", 0.9),
    },
    paper=[
        Figure(
            "repeat copy: taught, and tried, lengths and repeats",
            "up to 10 and 10; 20 and 10, 10 and 20",
            "Graves et al. 2014, section 4.2",
        ),
        Figure(
            "associative recall: items taught, and tried",
            "2 to 6; up to 20",
            "Graves et al. 2014, section 4.3",
        ),
        Figure(
            "dynamic n-grams",
            "better than LSTM, never as good as the best predictor",
            "Graves et al. 2014, section 4.4",
        ),
        Figure("priority sort", "better than LSTM", "Graves et al. 2014, section 4.5"),
    ],
    draw=draw,
)
