"""The long form of the study `dnc`: eight bAbI tasks, or all twenty, learned by one network word by word.

Graves et al. 2016 learn all tasks jointly; Csordas & Schmidhuber 2019 with keys that are masked and freed
slots that are erased (DNC-MD), which is taken here. Training begins with stories that end at their first
question, and goes on to whole ones: with whole ones from the start nothing is learned for a long time.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnemos.memories.dnc import DNC
from mnemos.memories.recurrent import Recurrent
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.progress import Advance
from mnemos.studies.fit import fit
from mnemos.tasks.babi import TASKS, babi
from mnemos.tasks.babi_words import BabiWords, babi_words
from mnemos.tasks.task import Batch

EIGHT = (1, 2, 4, 6, 7, 9, 11, 15)
QUESTIONS = 5  # of the longest stories of all tasks but two
FAILED = 0.05
TOGETHER = 100  # stories that are tried at once


class Reading(NamedTuple):
    """How the stories are learned."""

    size: str = "en-10k"
    longest: int = 400  # words of a story
    slots: int = 128
    width: int = 64
    read_heads: int = 4
    hidden_size: int = 256
    rows: int = 32
    steps: int = 60_000
    learning_rate: float = 1e-3


def babi_jointly(
    seed: int, advance: Advance, tasks: Sequence[int] | None = None, reading: Reading | None = None
) -> dict[str, Any]:
    """The error of one network on the test stories of every task; of all twenty where a GPU is at hand."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reading = reading or Reading()
    tasks = tasks or (EIGHT if device.type == "cpu" else tuple(TASKS))
    whole = babi_words(tasks, reading.size, reading.longest, seed)
    torch.manual_seed(seed)
    network = _network(whole, reading).to(device)
    _teach(network, whole, reading, seed, advance)
    by_task = {}
    for task in tasks:
        stories = tuple(babi([task], "test", size=reading.size, download=True))
        by_task[str(task)] = _error(network, BabiWords(stories, whole.vocabulary))
    return {
        "babi_error_by_task": by_task,
        "babi_mean_error": sum(by_task.values()) / len(by_task),
        "babi_failed_tasks": sum(error > FAILED for error in by_task.values()),
    }


def _network(task: BabiWords, reading: Reading) -> MemoryAugmented:
    memory = DNC(
        reading.hidden_size,
        reading.slots,
        reading.width,
        read_heads=reading.read_heads,
        masked_content=True,
        erase_freed=True,
    )
    controller = Recurrent(task.input_size + memory.output_size, reading.hidden_size)
    return MemoryAugmented(controller, memory, task.output_size)


def _teach(network: MemoryAugmented, whole: BabiWords, reading: Reading, seed: int, advance: Advance) -> None:
    lessons = [_up_to_question(whole, number) for number in range(1, QUESTIONS)] + [whole]
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        half = max(1, reading.steps // 2)  # the second is spent on whole stories
        batch = lessons[min(len(lessons) - 1, len(lessons) * step // half)].batch(reading.rows, generator)
        return whole.loss(*_asked(network, batch))

    fit(
        network,
        loss,
        reading.steps,
        learning_rate=reading.learning_rate,
        clip=10.0,
        inertia=0.99,
        advance=advance,
    )


def _up_to_question(task: BabiWords, number: int) -> BabiWords:
    """The same stories, each ended after that many of its questions."""
    return replace(
        task, stories=tuple(story._replace(questions=story.questions[:number]) for story in task.stories)
    )


def _asked(network: MemoryAugmented, batch: Batch) -> tuple[Tensor, Batch]:
    """What a network answers, and the batch, where the network is."""
    device = next(network.parameters()).device
    there = Batch(*(part.to(device) for part in batch))
    return network(there.inputs)[0], there  # without a mask: padding comes after all that is scored


@torch.no_grad()
def _error(network: MemoryAugmented, task: BabiWords) -> float:
    counts = [task.wrong(*_asked(network, batch)) for batch in task.batches(TOGETHER)]
    return sum(wrong for wrong, _ in counts) / sum(questions for _, questions in counts)
