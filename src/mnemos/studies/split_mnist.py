"""Split MNIST: ten digits in five contexts of two, in the three scenarios of continual learning.

Van de Ven, Tuytelaars & Tolias 2022, "Three types of incremental learning", after van de Ven & Tolias 2018:
a network of two hidden layers of 400, Adam at 0.001, 2,000 batches of 128 a context; 500 here, the paper's
in full. Which digits come together is drawn anew for every seed. Terms have the strengths of the authors'
own code.

What cannot work is shown beside what does: in the class-incremental scenario no penalty on weights tells
digits apart that never were learned together, and that is expected of it here. Of a method with a fast
store, three answer: the store alone, by the nearest of what it keeps; the network alone; and both.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mnemos.consolidation import (
    AGEM,
    EWC,
    MAS,
    SI,
    DarkReplay,
    FeedbackReplay,
    GenerativeReplay,
    LwF,
    Replay,
    average_accuracy,
    backward_transfer,
)
from mnemos.progress import Advance, between
from mnemos.studies.continual_methods import (
    Course,
    Exemplars,
    Generative,
    Joint,
    Method,
    Solved,
    Terms,
    WithTerms,
    autoencoder,
    feedback,
)
from mnemos.studies.parts import part
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.contexts import (
    ClassIncremental,
    Context,
    DomainIncremental,
    Scenario,
    TaskIncremental,
    split,
)
from mnemos.tasks.mnist import Digits, mnist

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SCENARIOS: dict[str, type[Scenario]] = {
    "task": TaskIncremental,
    "domain": DomainIncremental,
    "class": ClassIncremental,
}
CLASSES = 2  # in a context
STEPS, FULL_STEPS, RUNS = 500, 2000, 3
EWC_STRENGTH = {TaskIncremental: 1e5, DomainIncremental: 1e10, ClassIncremental: 1e9}
SI_STRENGTH = {TaskIncremental: 10.0, DomainIncremental: 50_000.0, ClassIncremental: 5000.0}


def _of(strengths: Mapping[type[Scenario], float], course: Course) -> float:
    return strengths[type(course.scenario)]


TERMS: dict[str, Terms] = {
    "none": lambda course, network, inputs: [],
    "EWC": lambda course, network, inputs: [EWC(_of(EWC_STRENGTH, course), outputs=course.allowed)],
    "SI": lambda course, network, inputs: [SI(_of(SI_STRENGTH, course))],
    "MAS": lambda course, network, inputs: [MAS(1.0)],
    "LwF": lambda course, network, inputs: [LwF()],
    "A-GEM": lambda course, network, inputs: [AGEM(course.episodes(), online=False)],
    "DER++": lambda course, network, inputs: [DarkReplay(course.episodes(), online=False)],
    "replay": lambda course, network, inputs: [Replay(course.episodes(), online=False)],
    "generative replay": lambda course, network, inputs: [
        GenerativeReplay(autoencoder(course, inputs), temperature=None, seed=course.seed)
    ],
    "generative replay, distilled": lambda course, network, inputs: [
        GenerativeReplay(autoencoder(course, inputs), seed=course.seed)
    ],
}
METHODS: dict[str, Callable[[Course, int], Method]] = {
    **{name: partial(WithTerms, terms=terms) for name, terms in TERMS.items()},
    "replay through feedback": partial(
        WithTerms, terms=lambda course, network, inputs: [FeedbackReplay(seed=course.seed)], network=feedback
    ),
    "analytic": Solved,
    "iCaRL": Exemplars,
    "generative classifier": Generative,
    "joint": Joint,
}
CLASSES_ONLY = ("iCaRL", "generative classifier")  # which are of the class-incremental scenario by design


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    return measure_at(mnist(download=True), FULL_STEPS if full else STEPS, RUNS, seed, advance)


def measure_at(
    digits: Digits,
    steps: int,
    runs: int,
    seed: int,
    advance: Advance,
    *,
    width: int = 400,
    exemplars: int = 100,
) -> dict[str, Any]:
    """`measure` with digits and sizes of one's own.

    Args:
        runs: of every method in every scenario, with seeds from `seed · runs` on.
        exemplars: of a class, in fast stores.
    """
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {
        kind: {name: [] for name in METHODS if kind == "class" or name not in CLASSES_ONLY}
        for kind in SCENARIOS
    }
    every = [(kind, name, run) for kind, methods in rows.items() for name in methods for run in range(runs)]
    for number, (kind, name, run) in enumerate(every):
        progress = between(advance, number / len(every), (number + 1) / len(every))
        settings = {"steps": steps, "width": width, "exemplars": exemplars}
        one = partial(_run, kind, name, digits, seed * runs + run, settings, progress)
        rows[kind][name].append(part(f"{kind}, {name}, {run}", one))
    measured: dict[str, Any] = {"steps": steps, "rows": rows}
    for kind, methods in rows.items():
        for name, found in methods.items():
            for who in found[0]["accuracy"]:
                measured[f"{kind}, {name}, {who}"] = sum(one["accuracy"][who] for one in found) / runs
    return measured


def _run(
    kind: str, name: str, digits: Digits, seed: int, settings: Mapping[str, int], advance: Advance
) -> dict[str, Any]:
    """One method in one scenario."""
    started = time.process_time()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
    contexts = split(digits, CLASSES, order)
    began = time.process_time()
    course = Course(SCENARIOS[kind](len(contexts), CLASSES), seed=seed, **settings)
    method = METHODS[name](course, contexts[0].train_inputs.shape[1])
    matrices: dict[str, torch.Tensor] = {}
    judging = 0.0
    for number, context in enumerate(contexts):
        progress = between(advance, number / len(contexts), (number + 1) / len(contexts))
        method.learn(number, context, _named(progress, f"{kind}, {name}"))
        judged = time.process_time()
        for who, answer in method.answers().items():
            matrix = matrices.setdefault(who, torch.full((len(contexts),) * 2, torch.nan))
            for place, one in enumerate(contexts[: number + 1]):
                matrix[number, place] = _right(course, one, answer)
        judging += time.process_time() - judged
    return {
        "accuracy": {who: average_accuracy(matrix).item() for who, matrix in matrices.items()},
        "backward": {who: backward_transfer(matrix).item() for who, matrix in matrices.items()},
        "seconds": time.process_time() - began - judging,
        "judging": judging,
        "preparing": began - started,
        "bytes": method.kept(),
    }


def _named(advance: Advance, what: str) -> Advance:
    """Says first whose progress it is."""
    return lambda share, part: advance(share, f"{what}: {part}")


@torch.no_grad()
def _right(
    course: Course, context: Context, answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> float:
    outputs = answer(context.test_inputs, context.test_labels)
    return course.now.right(outputs, context.test_labels).double().mean().item()


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Accuracy over all digits after the last two, in every scenario, run by run."""
    from mnemos.report.drawing import FAINT, INK, WITH, WITHOUT, drawing

    looks = {"store": FAINT, "network": WITHOUT, "both": WITH}
    names = list(METHODS)  # in the class-incremental scenario there are all
    with drawing(0.6 + 0.3 * len(names), columns=3) as (figure, axes):
        for one, (kind, rows) in zip(axes, measured["rows"].items(), strict=True):
            for name, runs in rows.items():
                for who, colour in looks.items():
                    found = [100 * run["accuracy"][who] for run in runs if who in run["accuracy"]]
                    alone = len(runs[0]["accuracy"]) == 1
                    one.plot(
                        found,
                        [names.index(name)] * len(found),
                        "o",
                        color=INK if alone else colour,
                        markersize=4,
                        alpha=0.8,
                    )
            one.set_title(f"{kind}-incremental", fontsize=9.5)
            one.set_yticks(range(len(names)), names if one is axes[0] else [])
            one.invert_yaxis()
            one.set_xlabel("digits told rightly, %")
        for who, colour in looks.items():
            axes[0].plot([], [], "o", color=colour, label=who)
        axes[0].legend(frameon=False, fontsize=8)
    return figure


STUDY = Study(
    name="split-mnist",
    title="Digits that come two by two, kept by penalties, replay and both systems (van de Ven et al. 2022)",
    measure=measure,
    thresholds={
        "task, EWC, network": Threshold(">=", 0.96),
        "task, SI, network": Threshold(">=", 0.96),
        "task, LwF, network": Threshold(">=", 0.985),
        "task, replay, network": Threshold(">=", 0.985),
        "task, none, network": Threshold("<=", 0.92),
        "domain, replay, network": Threshold(">=", 0.88),
        "class, none, network": Threshold("<=", 0.23),
        "class, EWC, network": Threshold("<=", 0.23),
        "class, SI, network": Threshold("<=", 0.23),
        "class, replay, network": Threshold(">=", 0.80),
        "class, generative replay, network": Threshold(">=", 0.75),
        "class, iCaRL, both": Threshold(">=", 0.85),
        "domain, generative replay, network": Threshold(">=", 0.88),
        "task, generative replay, network": Threshold(">=", 0.985),
        "class, analytic, both": Threshold(">=", 0.95),
        "class, joint, network": Threshold(">=", 0.96),
    },
    paper=[
        Figure(
            "class-incremental, 100 exemplars a class, replay and iCaRL",
            "88.8 and 92.5 %",
            "van de Ven et al. 2022",
        ),
        Figure("class-incremental, none, EWC, SI, LwF", "19.9, 20.6, 21.2, 21.9 %", "van de Ven et al. 2022"),
        Figure("class-incremental, A-GEM", "65.1 %", "van de Ven et al. 2022"),
        Figure(
            "task-incremental, none, EWC, SI, LwF, replay",
            "84.3, 99.1, 99.2, 99.6, 99.0 %",
            "van de Ven et al. 2022",
        ),
        Figure(
            "domain-incremental, none, EWC, SI, LwF, replay",
            "60.1, 63.0, 66.9, 72, 93.8 %",
            "van de Ven et al. 2022",
        ),
        Figure("joint, task, domain and class", "99.7, 98.6, 98.2 %", "van de Ven et al. 2022"),
    ],
    draw=draw,
)
