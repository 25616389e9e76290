"""The end-to-end memory network on single bAbI tasks: does it look at the sentence that supports the answer?

Sukhbaatar et al. 2015: a network of width 20 and three hops for each of tasks 1, 4, 12 and 20. On task 1,
where one sentence supports the answer, that with the greatest weight, averaged over the hops, should be it.
The network is told answers alone, never which sentences support them. In task 4 the same words in another
order mean another thing; there it matters that J of the position encoding is the task's own. The best
of five runs of each task on an own validation cut counts, of ten with `full`, and all are shown.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mnemos.models.answering import AnswerTraining, answer_error, train_answers
from mnemos.models.end_to_end import MemN2N
from mnemos.progress import Advance
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.babi import Questions, Story, babi, encode, hold_out, vocabulary

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

CHOSEN = (1, 4, 12, 20)
SOURCE = "Sukhbaatar et al. 2015, as a reproduction quotes it"


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    restarts = 10 if full else 5
    measured: dict[str, Any] = {}
    runs: dict[str, list[dict[str, float]]] = {}
    for number, task in enumerate(CHOSEN):
        learn, choose = hold_out(babi([task], download=True), seed=seed)
        test = babi([task], "test", download=True)
        found = []
        for restart in range(restarts):
            done = (number * restarts + restart) / (len(CHOSEN) * restarts)
            advance(done, f"task {task}, run {restart + 1}")
            found.append(_run(learn, choose, test, 1000 * seed + restart))
        best = min(found, key=lambda run: run["validation"])
        shown = ("validation", "error", "error_in_training")
        runs[str(task)] = [{name: run[name] for name in shown} for run in found]
        measured[f"error_of_task_{task}"] = best["error"]
        if task == 1:
            measured |= {"attention_on_the_supporting_fact": best["attention"], "story": best["story"]}
    return measured | {"runs": runs}


def _run(learn: list[Story], choose: list[Story], test: list[Story], seed: int) -> dict[str, Any]:
    words = vocabulary(learn)
    learned, chosen, tested = (encode(stories, words) for stories in (learn, choose, test))
    torch.manual_seed(seed)
    # The time is a word of every sentence in the authors' program, and so one of J.
    network = MemN2N(len(words), width=20, longest=learned.sentences.shape[2] + 1)
    training = AnswerTraining(epochs=100, linear_epochs=20, seed=seed)  # as in the authors' program
    errors = train_answers(network, learned, chosen, training)
    return {
        "validation": errors[-1],
        "error": answer_error(network, tested),
        "error_in_training": answer_error(network, learned),
        "attention": _attention(network, tested),
        "story": _story(network, tested, test),
    }


@torch.no_grad()
def _attention(network: MemN2N, questions: Questions) -> float:
    """The share of questions with one supporting sentence whose greatest weight lies on it."""
    questions = questions.pick(questions.supporting.sum(1) == 1)
    weights = network(questions.sentences, questions.told, questions.questions).weights.mean(1)
    place = questions.supporting.int().argmax(1)
    return (weights.argmax(1) == place).double().mean().item()


@torch.no_grad()
def _story(network: MemN2N, questions: Questions, stories: list[Story]) -> dict[str, Any]:
    """The last question of the first story, in words, with the weights of every hop."""
    story = stories[0]
    row = questions.pick(torch.tensor([len(story.questions) - 1]))
    question = story.questions[-1]
    weights = network(row.sentences, row.told, row.questions).weights[0, :, : question.after]
    return {
        "sentences": [" ".join(sentence) for sentence in story.sentences[: question.after]],
        "question": " ".join(question.words),
        "answer": question.answer,
        "supporting": list(question.supporting),
        "weights": weights.tolist(),
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Where each hop looks, in one story."""
    from mnemos.report.drawing import INK, drawing

    story = measured["story"]
    sentences, weights = story["sentences"], story["weights"]
    with drawing(height=0.9 + 0.24 * len(sentences)) as (figure, [axes]):
        columns = [list(column) for column in zip(*weights, strict=True)]
        image = axes.imshow(columns, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for slot, row in enumerate(columns):
            for hop, weight in enumerate(row):
                axes.text(hop, slot, f"{weight:.2f}", ha="center", va="center", fontsize=8,
                          color="white" if weight > 0.5 else INK)  # fmt: skip
        marked = [
            f"{text} *" if place in story["supporting"] else text for place, text in enumerate(sentences)
        ]
        axes.set_yticks(range(len(sentences)), marked)
        axes.set_xticks(range(len(weights)), [f"hop {hop + 1}" for hop in range(len(weights))])
        axes.grid(visible=False)
        axes.set_title(f"{story['question']}?  {story['answer']}   (* supports the answer)", loc="left")
        figure.colorbar(image, ax=axes, label="weight", shrink=0.9)
    return figure


STUDY = Study(
    name="memn2n-single",
    title="An end-to-end memory network looks at the supporting sentence (Sukhbaatar et al. 2015)",
    measure=measure,
    thresholds={
        **{f"error_of_task_{task}": Threshold("<", 0.02) for task in CHOSEN},
        "attention_on_the_supporting_fact": Threshold(">=", 0.95),
    },
    paper=[Figure("error of tasks 1, 4, 12 and 20, 1k, all tasks jointly", "0, .134, .001, 0", SOURCE)],
    draw=draw,
)
