"""Multi-query associative recall: one small decoder with every mixer in turn, beside attention.

Arora et al. 2024, "Zoology": what a language model with a state of fixed size lacks beside attention is to a
large part the recall of pairs in its context. Mixers that correct what they would answer do not lack it; sums
of outer products and diagonal state spaces of the same width do.

Scaled down: the paper's 100,000 sequences for 64 epochs are here sequences that are never seen twice, first
of 16 tokens with 2 pairs, and of twice as many of both whenever those are learned, for all mixers alike. A
network that is taught the last size from the beginning stays near a guess for long.

Eight pairs are few beside 64 features. Sequences of twice the length and pairs, which no mixer was taught,
tell how much room is left.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mnemos.models.hybrid import hybrid
from mnemos.models.transformer import Transformer
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.parts import part
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.multi_query_recall import MultiQueryRecall

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

ERASING = ("delta-rule", "gated-delta", "kimi-delta", "gated-delta-2")
SUM, STATE_SPACE = "linear-attention", "selective-state-space"
VOCABULARY, WIDTH, LAYERS = 256, 64, 2
SIZES = ((16, 2), (32, 4), (64, 8))  # length and pairs
FULL_SIZES = (*SIZES, (128, 8), (256, 16))
TOKENS = 1024  # in a step
STEPS, FULL_STEPS, CHECK = 2000, 8000, 100
LEARNED, ENOUGH = 0.9, 0.995  # shares of right answers: the next task then comes, or training ends


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    sizes = FULL_SIZES if full else SIZES
    networks = {
        name: partial(
            hybrid, VOCABULARY, [name] * LAYERS, width=WIDTH, heads=1, context=2 * FULL_SIZES[-1][0]
        )
        for name in ("attention", *ERASING, SUM, STATE_SPACE)
    }
    untaught = MultiQueryRecall(VOCABULARY, 2 * sizes[-1][0], 2 * sizes[-1][1])
    measured: dict[str, Any] = {
        "pairs": sizes[-1][1],
        **taught(networks, seed, tasks_of(sizes), FULL_STEPS if full else STEPS, untaught, advance),
    }
    last = measured["last"]
    worst = min(last[name] for name in ERASING)
    return measured | {
        "attention": last["attention"],
        "erasing_worst": worst,
        "state_space_behind": worst - last[STATE_SPACE],
        "sum_behind": worst - last[SUM],
        "sum_behind_untaught": min(measured["untaught"][name] for name in ERASING)
        - measured["untaught"][SUM],
    }


def tasks_of(sizes: Sequence[tuple[int, int]]) -> list[MultiQueryRecall]:
    """The task at each length and number of pairs."""
    return [MultiQueryRecall(VOCABULARY, length, pairs) for length, pairs in sizes]


def taught(
    networks: Mapping[str, Callable[[], Transformer]],
    seed: int,
    tasks: Sequence[MultiQueryRecall],
    steps: int,
    untaught: MultiQueryRecall,
    advance: Advance,
) -> dict[str, dict[str, Any]]:
    """Teaches networks one after the other, each begun with the same seed.

    Args:
        networks: by name, what begins each.
        tasks, steps: as in `learn`.
        untaught: another task, which each is asked in the end.

    Returns:
        By name the "steps" that each took; what was "right" of the last task by step, and in the end, "last";
        what was right of what was "untaught"; and its "parameters".
    """
    found: dict[str, dict[str, Any]] = {
        what: {} for what in ("right", "last", "steps", "untaught", "parameters")
    }
    for number, (name, begin) in enumerate(networks.items()):
        progress = between(advance, number / len(networks), (number + 1) / len(networks))
        one = part(name, partial(_taught, begin, seed, tasks, steps, untaught, progress))
        for what, value in one.items():
            found[what][name] = value
    return found


def _taught(
    begin: Callable[[], Transformer],
    seed: int,
    tasks: Sequence[MultiQueryRecall],
    steps: int,
    untaught: MultiQueryRecall,
    advance: Advance,
) -> dict[str, Any]:
    torch.manual_seed(seed)
    network = begin()
    taken, right = learn(network, seed, tasks, steps, advance)
    return {
        "right": right,
        "last": list(right.values())[-1],
        "steps": taken,
        "untaught": answered(network, untaught, seed, rows=512),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def learn(
    network: Transformer, seed: int, tasks: Sequence[MultiQueryRecall], steps: int, advance: Advance
) -> tuple[int, dict[str, float]]:
    """Teaches a network one task after the other, each until it is learned.

    Args:
        steps: at most, in all.

    Returns:
        The steps that it took, and by step the share of right answers to the last task.
    """
    generator = torch.Generator().manual_seed(seed)
    right: dict[str, float] = {}
    at = 0

    def loss(step: int) -> Tensor:
        task = tasks[at]
        batch = task.tokens(TOKENS // task.length, generator)
        return task.loss(network(batch.inputs)[0], batch)

    def done(step: int) -> bool:
        nonlocal at
        if step % CHECK:
            return False
        right[str(step)] = answered(network, tasks[-1], seed)
        if at < len(tasks) - 1 and answered(network, tasks[at], seed) > LEARNED:
            at += 1
        return right[str(step)] > ENOUGH

    # A task that grows: see `fit` on inertia.
    taken = fit(network, loss, steps, learning_rate=5e-3, inertia=0.98, advance=advance, done=done)
    right[str(taken)] = answered(network, tasks[-1], seed, rows=1024)
    return taken, right


@torch.no_grad()
def answered(network: Transformer, task: MultiQueryRecall, seed: int, rows: int = 128) -> float:
    """The share of right answers to sequences that it has not learned from."""
    batch = task.tokens(rows, torch.Generator().manual_seed(1_000_000 + seed))
    return 1 - task.error(network(batch.inputs)[0], batch)


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """How recall comes, mixer by mixer."""
    from mnemos.report.drawing import FAINT, INK, TUNED, WITH, WITHOUT, curve, drawing

    with drawing(3.4) as (figure, (axes,)):
        for name, right in measured["right"].items():
            colour = {"attention": INK, SUM: TUNED, STATE_SPACE: WITHOUT}.get(name, WITH)
            style = ["-", "--", ":", "-."][ERASING.index(name)] if name in ERASING else "-"
            curve(axes, right, "", colour, linestyle=style)
            axes.lines[-1].set_label(name)
        axes.axhline(100 / (measured["pairs"]), color=FAINT, linewidth=1.2)
        axes.legend(frameon=False, loc="lower right", fontsize=8.5)
        axes.set_xlabel("steps of 1,024 tokens; the line is a guess among the values shown")
        axes.set_ylabel("keys answered rightly, %")
    return figure


STUDY = Study(
    name="mqar",
    title="Mixers that erase recall pairs as attention does, others do not (Arora et al. 2024)",
    measure=measure,
    thresholds={
        "attention": Threshold(">=", 0.99),
        "erasing_worst": Threshold(">=", 0.97),
        "state_space_behind": Threshold(">=", 0.1),
        "sum_behind": Threshold(">=", 0.1),
        "sum_behind_untaught": Threshold(">=", 0.1),
    },
    paper=[
        Figure("attention, all widths and lengths up to 512", "about 1.0", "Arora et al. 2024, figure 2"),
        Figure(
            "mixers with a state, the same sizes",
            "need widths that grow with the length; DeltaNet is near 1.0 at (512, 64), 64 to 128 wide",
            "Arora et al. 2024, figure 2; Yang et al. 2024, figure 2",
        ),
    ],
    draw=draw,
)
