"""The DNC follows ways through a graph that it was told edge by edge, and finds the shortest one.

Graves et al. 2016, scaled down: graphs of four and five places in numbers of one digit, and a feed-forward
controller. Taught are random graphs alone. The network that follows ways is then tried in parts of London's
Underground, which it has never seen: a station and a line lead to the next station. Beside each network an
LSTM is taught the same. Longer ways are taught once the shorter ones are mastered, as in the paper. Some
networks never master one edge; such a one begins anew, up to twice, and its starts are counted.
"""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mnemos.memories.dnc import DNC
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.progress import Advance, between
from mnemos.studies.algorithms import Control, with_controller
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.graph_questions import GraphTask, ShortestPath, Traversal
from mnemos.tasks.graphs import Graphs, RandomGraphs, UndergroundGraphs, underground
from mnemos.tasks.sequences import Range, padded

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

ROWS = 32  # sequences of a training step
TRIED = 500  # sequences that a network is judged by
MASTERED, OVER = 0.2, 40  # an error below this, over so many steps, and ways grow longer by one edge
STARTS, PATIENCE = 3, 1500  # a network that has not mastered one edge after so many steps begins anew

Lesson = Callable[[Graphs, Range], GraphTask]  # from graphs and the edges of a way


class Form(NamedTuple):
    """A form of the study."""

    graphs: RandomGraphs
    places: Range  # of a part of the Underground
    digits: int
    base: int
    planning: int
    edges: Mapping[str, int]  # of the longest way that is taught, by question
    steps: Mapping[str, int]
    learning_rates: Mapping[str, float]
    slots: int
    width: int
    read_heads: int
    hidden_size: int  # of the controller
    control_hidden_size: int


QUESTIONS = ("traversal", "shortest_path")
SHORT = Form(
    graphs=RandomGraphs((4, 5), (1, 3), 6),
    places=(4, 5),
    digits=1,
    base=13,  # no part of five stations has more labels
    planning=6,
    edges={"traversal": 4, "shortest_path": 3},
    steps={"traversal": 4000, "shortest_path": 5000},
    learning_rates={"traversal": 1e-2, "shortest_path": 5e-3},
    slots=32,
    width=24,
    read_heads=4,
    hidden_size=96,
    control_hidden_size=256,
)
FULL = Form(
    graphs=RandomGraphs((6, 10), (1, 4), 10),
    places=(6, 8),
    digits=2,
    base=10,
    planning=10,
    edges={"traversal": 7, "shortest_path": 4},
    steps={"traversal": 40_000, "shortest_path": 100_000},
    learning_rates={"traversal": 3e-3, "shortest_path": 3e-3},
    slots=64,
    width=32,
    read_heads=5,
    hidden_size=256,
    control_hidden_size=512,
)


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    form = FULL if full else SHORT
    lines, names = underground()
    london = UndergroundGraphs(lines, form.places)
    measured: dict[str, Any] = {"right_ways": {}, "lessons": {}, "starts": {}}
    for number, question in enumerate(QUESTIONS):
        here = between(advance, number / 2, (number + 1) / 2)
        lesson, edges = _lesson(question, form), form.edges[question]
        task = lesson(form.graphs, (1, edges))
        makes: dict[str, Callable[[], nn.Module]] = {
            "dnc": partial(_network, task, form),
            "lstm": partial(Control, task, form.control_hidden_size),
        }
        rates = {"dnc": form.learning_rates[question], "lstm": 3e-3}
        for name, make in makes.items():
            share = between(here, 0.0, 0.8) if name == "dnc" else between(here, 0.8, 1.0)
            taught, lessons, starts = _taught(make, lesson, form, question, rates[name], seed, share)
            measured["lessons"][f"{question}_{name}"] = lessons
            measured["starts"][f"{question}_{name}"] = starts
            if question == "traversal" and isinstance(taught, MemoryAugmented):
                measured |= _shown(taught, lesson(london, (edges, edges)), names, seed)
            for place, graphs in (("", form.graphs), ("_in_london", london)):
                measured[f"{question}_{name}{place}"] = _right(taught, lesson(graphs, (1, edges)), seed)
                measured["right_ways"][f"{question}_{name}{place}"] = {
                    str(length): _right(taught, lesson(graphs, (length, length)), seed)
                    for length in range(1, edges + (question == "traversal") + 1)
                }
    over = measured["shortest_path_dnc"] - measured["shortest_path_lstm"]
    return {**measured, "shortest_path_over_lstm": over}


def _lesson(question: str, form: Form) -> Lesson:
    def lesson(graphs: Graphs, edges: Range) -> GraphTask:
        if question == "traversal":
            return Traversal(graphs, edges, form.digits, form.base)
        return ShortestPath(graphs, edges, form.planning, form.digits, form.base)

    return lesson


def _network(task: GraphTask, form: Form) -> MemoryAugmented:
    memory = DNC(form.hidden_size, form.slots, form.width, read_heads=form.read_heads)
    return with_controller(task, memory)


def _taught(
    make: Callable[[], nn.Module],
    lesson: Lesson,
    form: Form,
    question: str,
    learning_rate: float,
    seed: int,
    advance: Advance,
) -> tuple[nn.Module, list[int], int]:
    """A network, when it was let on to longer ways, and how often it began."""
    for start in range(STARTS):
        begun = seed + 1000 * start
        torch.manual_seed(begun)
        network = make()
        patience = PATIENCE if start + 1 < STARTS else form.steps[question]
        here = between(advance, start / STARTS, (start + 1) / STARTS)
        lessons = _teach(network, lesson, form, question, learning_rate, patience, begun, here)
        if lessons:
            break
    return network, lessons, start + 1


def _teach(
    network: nn.Module,
    lesson: Lesson,
    form: Form,
    question: str,
    learning_rate: float,
    patience: int,
    seed: int,
    advance: Advance,
) -> list[int]:
    """Trains a network on ways of one edge, of up to two, and so on; returns when it was let on to more."""
    edges = form.edges[question]
    generator = torch.Generator().manual_seed(seed)
    lessons: list[int] = []
    errors: list[float] = []

    def loss(step: int) -> Tensor:
        if len(errors) >= OVER and sum(errors[-OVER:]) < MASTERED * OVER and len(lessons) + 1 < edges:
            lessons.append(step)
            errors.clear()
        task = lesson(form.graphs, (1, len(lessons) + 1))
        batch = task.batch(ROWS, generator)
        outputs = network(batch.inputs)[0]  # without a mask: padding comes after all that is scored
        errors.append(task.error(outputs.detach(), batch))
        return task.loss(outputs, batch)

    def hopeless(step: int) -> bool:
        return step >= patience and not lessons

    fit(
        network,
        loss,
        form.steps[question],
        learning_rate=learning_rate,
        clip=10.0,
        inertia=0.99,
        advance=advance,
        done=hopeless,
    )
    return lessons


@torch.no_grad()
def _right(network: nn.Module, task: GraphTask, seed: int) -> float:
    """The share of ways that are answered without any fault."""
    batch = task.batch(TRIED, torch.Generator().manual_seed(1_000_000 + seed))
    return 1 - task.wrong_ways(network(batch.inputs)[0], batch)


@torch.no_grad()
def _shown(network: MemoryAugmented, task: GraphTask, names: Mapping[int, str], seed: int) -> dict[str, Any]:
    """What was read of each edge that was told, at every step of one answer, by all heads together."""
    asked = task.ask(random.Random(seed))
    batch, state = padded([asked.example]), None
    written, read = [], []
    for inputs in batch.inputs.split(1, dim=1):
        _, state = network(inputs, state)
        written.append(state.memory.write_weights[0, 0])
        read.append(state.memory.read_weights[0].sum(0))
    told, answers = len(asked.told), len(asked.answers)
    homes = torch.stack(written[:told])  # (edges told, slots)
    weights = homes @ torch.stack(read[-answers:]).T
    return {
        "edges_told": [f"{names[edge.source]} to {names[edge.destination]}" for edge in asked.told],
        "way": [asked.told.index(edge) for edge in asked.answers],
        "read_weights": [[round(weight, 3) for weight in row] for row in weights.tolist()],
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Right ways by their length, and what was read of each edge while a way was answered."""
    from mnemos.report.drawing import FAINT, TUNED, WITH, WITHOUT, curve, drawing

    told, way, weights = measured["edges_told"], measured["way"], measured["read_weights"]
    looks = (
        ("lstm", WITHOUT, "LSTM", 0),
        ("dnc_in_london", TUNED, "London", -10),  # often where the other ends
        ("dnc", WITH, "DNC", 0),
    )
    with drawing(height=3.4, columns=3) as (figure, [following, finding, reading]):
        for axes, question in ((following, "traversal"), (finding, "shortest_path")):
            for name, colour, text, raised in looks:
                right = measured["right_ways"][f"{question}_{name}"]
                curve(axes, right, text, colour, raised=raised)
            axes.set_ylim(-3, 103)
            axes.set_xticks([int(length) for length in right])
            axes.set_xlabel("edges of a way")
            axes.set_title(question.replace("_", " "))
        following.axvline(len(way), color=FAINT, linewidth=1.2)
        following.set_ylabel("right ways, %")
        reading.imshow(weights, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
        for step, edge in enumerate(way):
            reading.plot(step, edge, marker="s", markersize=9, markerfacecolor="none", markeredgecolor=TUNED)
        reading.set_yticks(range(len(told)), told, fontsize=6)
        reading.set_xticks(range(len(way)), [str(step + 1) for step in range(len(way))])
        reading.grid(visible=False)
        reading.set_xlabel("answer")
        reading.set_title("read weights")
    return figure


STUDY = Study(
    name="dnc-graph",
    title="A DNC follows and finds ways through a graph it was told (Graves et al. 2016)",
    measure=measure,
    # The paper's own figures, though its graphs are larger.
    thresholds={
        "traversal_dnc": Threshold(">=", 0.988),
        "traversal_dnc_in_london": Threshold(">=", 0.988),
        "traversal_lstm": Threshold("<=", 0.37),
        "shortest_path_dnc": Threshold(">=", 0.553),
        "shortest_path_over_lstm": Threshold(">=", 0.2),
    },
    paper=[
        Figure("traversal, right ways, %: DNC, LSTM", "98.8, 37", "Graves et al. 2016"),
        Figure("four edges through the London Underground, right ways, %", 98.8, "Graves et al. 2016"),
        Figure("shortest path, right ways, %", 55.3, "Graves et al. 2016"),
    ],
    draw=draw,
)
