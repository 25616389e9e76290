"""The end-to-end memory network on all twenty bAbI tasks jointly, 1,000 questions each.

Sukhbaatar et al. 2015: one network of width 50 and three hops learns all tasks, with position and temporal
encoding, linear start and random noise, as in the authors' program. Of three runs the one with the least
error on an own validation cut counts; all are shown. The control is the same network that is told no sentence
before the question.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mnemos.models.answering import AnswerTraining, answer_error, train_answers
from mnemos.models.end_to_end import MemN2N
from mnemos.progress import Advance, between
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.babi import TASKS, Questions, babi, encode, hold_out, vocabulary

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SOURCE = "Sukhbaatar et al. 2015, table 1, as its reproductions quote it"


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    learn, choose = hold_out(babi(download=True), seed=seed)
    words = vocabulary(learn)
    test = babi(part="test", download=True)
    parts = [encode(stories, words) for stories in (learn, choose, test)]
    epochs, restarts = (100, 10) if full else (60, 3)
    runs = []
    for number in range(restarts):
        training = AnswerTraining(epochs=epochs, seed=1000 * seed + number)
        progress = between(advance, number / (restarts + 0.1), (number + 1) / (restarts + 0.1))
        runs.append(_run(parts, len(words), training, progress))
    untold = [part._replace(told=torch.zeros_like(part.told)) for part in parts]
    brief = AnswerTraining(epochs=6, linear_epochs=2, seed=seed)
    control = _run(untold, len(words), brief, between(advance, 0.97, 1.0))
    best = min(runs, key=lambda run: run["validation"])
    return {
        "mean_error": best["mean_error"],
        "failed_tasks": best["failed_tasks"],
        **{f"error_of_task_{task}": best["by_task"][task - 1] for task in (1, 12, 15, 20)},
        "mean_error_without_memory": control["mean_error"],
        "runs": [*runs, {"without memory": control}],
        "by_task": best["by_task"],
        "by_task_without_memory": control["by_task"],
    }


def _run(parts: list[Questions], words: int, training: AnswerTraining, advance: Advance) -> dict[str, Any]:
    """Trains once; errors on the validation cut and on the test, task by task."""
    learned, chosen, tested = parts
    torch.manual_seed(training.seed)
    network = MemN2N(words, longest=learned.sentences.shape[-1])
    errors = train_answers(network, learned, chosen, training, advance)
    by_task = [answer_error(network, tested.pick(tested.tasks == task)) for task in TASKS]
    return {
        "seed": training.seed,
        "validation": errors[-1],
        "mean_error": sum(by_task) / len(by_task),
        "failed_tasks": sum(error > 0.05 for error in by_task),
        "by_task": by_task,
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """The error of every task, with memory and without."""
    from mnemos.report.drawing import FAINT, INK, WITH, WITHOUT, drawing

    with drawing(height=2.9) as (figure, [axes]):
        bars = (("by_task_without_memory", WITHOUT, 0.78), ("by_task", WITH, 0.5))
        for name, colour, width in bars:
            axes.bar(list(TASKS), [100 * error for error in measured[name]], width, color=colour)
        axes.axhline(5, color=INK, linewidth=0.8)
        axes.grid(visible=False, axis="x")
        axes.set_xticks(list(TASKS))
        axes.set_facecolor("none")
        axes.tick_params(color=FAINT)
        axes.set_xlabel("bAbI task")
        axes.set_ylabel("wrong answers, %")
        axes.set_title(
            "told the story (blue), or asked without it (grey); above the line a task counts as failed"
        )
    return figure


STUDY = Study(
    name="memn2n",
    title="An end-to-end memory network learns all bAbI tasks jointly (Sukhbaatar et al. 2015)",
    measure=measure,
    thresholds={
        "mean_error": Threshold("<=", 0.17),
        "error_of_task_1": Threshold("<", 0.03),
        "error_of_task_12": Threshold("<", 0.03),
        "error_of_task_15": Threshold("<", 0.05),
        "error_of_task_20": Threshold("<", 0.03),
    },
    paper=[
        Figure("mean error, 1k joint, 3 hops, PE LS RN", 0.124, SOURCE),
        Figure("failed tasks of 20", 11, SOURCE),
        Figure("mean error of three reproductions", "0.125, 0.154, 0.162", "their own READMEs"),
    ],
    draw=draw,
)
