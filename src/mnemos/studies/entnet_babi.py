"""The long form of the study `entnet`: each of the twenty bAbI tasks alone, with 10,000 questions to learn.

Henaff et al. 2017 and their own code: width 100, 20 entities, Adam from .01, halved every 25 of 200 passes.
Sentences and questions are words times learned vectors of their places, two sets of places over one set of
words. In the paper the best of ten runs counts; here each task has one run.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.entity import EntNet
from mnemos.models.entity import EntityNetwork, MaskedWords
from mnemos.progress import Advance
from mnemos.tasks.babi import TASKS, Questions, babi, encode, hold_out, vocabulary

WIDTH, SLOTS, ROWS, EPOCHS, HALVED = 100, 20, 32, 200, 25
KEPT = 70  # the last sentences of a story that are told
KEPT_OF_TASK_3 = 130
FAILED = 0.05


class StoryReader(nn.Module):
    """Questions about stories, answered with a word by an entity network."""

    def __init__(self, vocabulary_size: int, words: int, width: int = WIDTH, slots: int = SLOTS) -> None:
        super().__init__()
        self.told, self.asked = (MaskedWords(vocabulary_size, words, width) for _ in range(2))
        self.asked.embedding = self.told.embedding
        self.network = EntityNetwork(EntNet(width, slots), vocabulary_size)

    def forward(self, given: Questions) -> Tensor:
        there = torch.arange(given.sentences.shape[1]) < given.told.unsqueeze(1)
        answers: Tensor = self.network(self.told(given.sentences), self.asked(given.questions), there)
        return answers


def babi_alone(
    seed: int, advance: Advance, tasks: Iterable[int] = TASKS, epochs: int = EPOCHS
) -> dict[str, Any]:
    """The error on the test of every task after learning that task alone, and how many are above .05."""
    chosen = list(tasks)
    by_task = {}
    for number, task in enumerate(chosen):
        advance(number / len(chosen), f"bAbI task {task}")
        by_task[task] = _error_of_task(task, seed, epochs)
    return {
        "babi_error_by_task": by_task,
        "babi_mean_error": sum(by_task.values()) / len(by_task),
        "babi_failed_tasks": sum(error > FAILED for error in by_task.values()),
    }


def _error_of_task(task: int, seed: int, epochs: int) -> float:
    """The error on the test at the pass that had the least on an own validation cut."""
    learn, choose = hold_out(babi([task], size="en-10k", download=True), seed=seed)
    test = babi([task], "test", size="en-10k", download=True)
    words, kept = vocabulary(learn), KEPT_OF_TASK_3 if task == 3 else KEPT
    # One width for all parts, so that a place means the same in each.
    longest = encode([*learn, *choose, *test], vocabulary([*learn, *choose, *test]), kept).sentences.shape[2]
    learned, chosen, tested = (encode(part, words, kept, longest) for part in (learn, choose, test))
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    reader = StoryReader(len(words), longest)
    optimizer = torch.optim.Adam(reader.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, HALVED, 0.5)
    found = []
    for _ in range(epochs):
        for rows in torch.randperm(len(learned.told), generator=generator).split(ROWS):
            batch = learned.pick(rows)
            optimizer.zero_grad()
            functional.cross_entropy(reader(batch), batch.answers).backward()
            nn.utils.clip_grad_norm_(reader.parameters(), 40 / ROWS)  # 40 where the loss is a sum
            optimizer.step()
        schedule.step()
        found.append((error(reader, chosen), error(reader, tested)))
    return min(found, key=lambda errors: errors[0])[1]


@torch.no_grad()
def error(reader: StoryReader, questions: Questions) -> float:
    """The share of questions that are answered wrongly, 0 to 1."""
    batches = map(questions.pick, torch.arange(len(questions.told)).split(500))
    right = torch.cat([reader(batch).argmax(-1) == batch.answers for batch in batches])
    return 1 - right.double().mean().item()
