"""The linear associator: how many pairs one matrix holds, by each of its three rules of writing.

The trap that this study is there for: random keys that are written once are recalled *less* well after one
pass of the delta rule at full strength than after a plain sum, since each write disturbs those before it. The
delta rule pays where keys come again with new values. The pseudo-inverse holds as many independent keys as
there are dimensions, exactly; when a key comes again it averages.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mnemos.memories.linear_associator import LinearAssociator, WriteRule, delta, hebb, pseudo_inverse
from mnemos.progress import Advance
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.association import codebook, random_pairs, rebound, right

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SIZE = 64  # d, of keys and values
VALUES = 512  # in the codebook
COUNTS = (16, 32, 48, 64, 80, 96, 112, 128)
LATE = 96  # pairs, of which recall is shown by when they were written
AGAIN, ROUNDS = SIZE // 2, 10
RULES: dict[str, tuple[Callable[[], WriteRule], float]] = {  # and the strength of a write
    "hebb": (hebb, 1.0),
    "delta": (delta, 1.0),
    "delta_half": (delta, 0.5),
    "pseudo_inverse": (pseudo_inverse, 1.0),
}


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    repetitions = 400 if full else 50
    once: dict[str, dict[int, Tensor]] = {name: {} for name in RULES}
    error = 0.0
    for number, count in enumerate(COUNTS):
        advance(0.7 * number / len(COUNTS), f"{count} keys written once")
        values = codebook(repetitions, VALUES, SIZE, generator)
        pairs = random_pairs(count, SIZE, values, generator)
        for name in RULES:
            memory, strengths = _memory(name, repetitions, count)
            state = memory.write(
                memory.initial_state(repetitions), pairs.keys, pairs.values, strength=strengths
            )
            answers = memory.read(state, pairs.keys).values
            once[name][count] = right(answers, values, pairs.labels).double().mean(0)
            if name == "pseudo_inverse" and count <= SIZE:
                error = max(error, (answers - pairs.values).abs().max().item())
    advance(0.7, f"{AGAIN} keys bound anew {ROUNDS} times")
    shares = {
        name: {count: by_time.mean().item() for count, by_time in of.items()} for name, of in once.items()
    }
    again = _again(repetitions, generator)
    return {
        "repetitions": repetitions,
        "overwrite_delta": again["delta"],
        "overwrite_hebb": again["hebb"],
        "overwrite_pseudo_inverse": again["pseudo_inverse"],
        "pseudo_inverse_up_to_size": min(shares["pseudo_inverse"][n] for n in COUNTS if n <= SIZE),
        "pseudo_inverse_error": error,
        "once_hebb_above_delta": shares["hebb"][LATE] - shares["delta"][LATE],
        "once": shares,
        "once_by_time": {name: _by_time(of[LATE]) for name, of in once.items()},
        "again": again,
    }


def _again(repetitions: int, generator: torch.Generator) -> dict[str, float]:
    """Keys bound anew in each round: which share of them answers its last value?"""
    values = codebook(repetitions, VALUES, SIZE, generator)
    rounds = list(rebound(ROUNDS, random_pairs(AGAIN, SIZE, values, generator), values, generator))
    found = {}
    for name in RULES:
        memory, strengths = _memory(name, repetitions, AGAIN)
        state = memory.initial_state(repetitions)
        for pairs in rounds:
            state = memory.write(state, pairs.keys, pairs.values, strength=strengths)
        last = rounds[-1]
        found[name] = right(memory.read(state, last.keys).values, values, last.labels).double().mean().item()
    return found


def _memory(name: str, repetitions: int, count: int) -> tuple[LinearAssociator, Tensor]:
    rule, strength = RULES[name]
    return LinearAssociator(SIZE, SIZE, rule()), torch.full((repetitions, count), strength)


def _by_time(recall: Tensor) -> list[float]:
    """Recall of eight neighbours in the order of writing at a time: a smoother curve."""
    return recall.unflatten(0, (-1, 8)).mean(1).tolist()


def draw(measured: Mapping[str, Any]) -> "Drawing":
    from mnemos.report.drawing import FAINT, INK, TUNED, WITH, WITHOUT, drawing, label

    looks = {
        "pseudo_inverse": (INK, "pseudo-inverse"),
        "hebb": (WITH, "Hebb"),
        "delta_half": (WITHOUT, "delta, 0.5"),
        "delta": (TUNED, "delta, 1"),
    }
    with drawing(height=2.7, columns=3) as (figure, [many, late, again]):
        for name, (colour, _) in looks.items():
            counts, shares = [int(count) for count in measured["once"][name]], measured["once"][name].values()
            many.plot(counts, list(shares), color=colour, linewidth=1.5, marker="o", markersize=3)
            by_time = measured["once_by_time"][name]
            late.plot([8 * n + 4.5 for n in range(len(by_time))], by_time, color=colour, linewidth=1.5)
        many.axvline(SIZE, color=FAINT, linewidth=1, zorder=0)
        many.annotate("d", (SIZE, 0.02), (3, 0), textcoords="offset points", color="#6b717b")
        many.set_title("written once")
        many.set_xlabel(f"pairs in a matrix of {SIZE} x {SIZE}")
        many.set_ylabel("recalled")
        late.set_title(f"{LATE} pairs, by age")
        late.set_xlabel("oldest to newest")
        names = list(looks)
        again.barh(
            [looks[name][1] for name in names],
            [measured["again"][name] for name in names],
            color=[looks[name][0] for name in names],
            height=0.6,
        )
        for row, name in enumerate(names):
            label(again, measured["again"][name], row, f"{measured['again'][name]:.2f}", looks[name][0])
        again.invert_yaxis()
        again.set_title("written again")
        again.set_xlabel(f"last of {ROUNDS} values, {AGAIN} keys")
        again.set_xlim(0, 1.2)
        again.set_xticks([0, 0.5, 1])
        again.grid(axis="y", visible=False)
        for axes in (many, late):
            axes.set_ylim(0, 1.04)
    return figure


STUDY = Study(
    name="linear-associator",
    title="What one matrix holds: Hebb, delta and pseudo-inverse (Kohonen 1972; Anderson 1972)",
    measure=measure,
    thresholds={
        "overwrite_delta": Threshold(">=", 0.95),
        "overwrite_hebb": Threshold("<=", 0.2),
        "pseudo_inverse_up_to_size": Threshold("==", 1.0),
        "pseudo_inverse_error": Threshold("<=", 1e-4),
        "once_hebb_above_delta": Threshold(">=", 0.1),
    },
    paper=[
        Figure(
            "loss where keys come back, sum of outer products against delta rule",
            "the sum fails, the delta rule does not (a figure without a table)",
            "Schlag, Irie & Schmidhuber 2021, section 6.1",
        ),
    ],
    draw=draw,
)
