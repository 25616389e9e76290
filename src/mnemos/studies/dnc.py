"""The DNC says a sequence several times over, and answers what belongs to a key; scaled down.

Graves et al. 2016 teach it graphs (`dnc_graph`) and bAbI (`dnc_babi`, in the long form alone). These are the
small tasks that each need one of its parts: repeat copy the links in the order of writing, key-value recall
content addressing and free slots. The controller is feed-forward, so that whatever lasts, lasts in memory
alone. Before that the parts themselves are asked for what is known exactly: three writes to three slots,
followed forwards and backwards.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mnemos.memories.dnc import DNC
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.ops.allocation import allocation
from mnemos.ops.linkage import followed, links_after, precedence_after
from mnemos.progress import Advance, between
from mnemos.studies.algorithms import draw_weights, weights_over, with_controller
from mnemos.studies.dnc_babi import babi_jointly
from mnemos.studies.fit import fit
from mnemos.studies.study import Study, Threshold
from mnemos.tasks.algorithms import RepeatCopy
from mnemos.tasks.recall import KeyValueRecall
from mnemos.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

ROWS, HIDDEN = 32, 64
REPEATED = RepeatCopy(4, (1, 5), (1, 3))
LONGER = replace(REPEATED, lengths=(8, 8), scaled_over=REPEATED.repeats)
RECALLED = KeyValueRecall(pairs=(6, 6))
STEPS = {"repeat_copy": 1400, "recall": 500}


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    more, small = (3, between(advance, 0.0, 0.1)) if full else (1, advance)
    copying = _network(REPEATED, slots=16, width=16)
    copying_steps = _teach(
        copying, REPEATED, more * STEPS["repeat_copy"], generator, between(small, 0.0, 0.6)
    )
    recalling = _network(RECALLED, slots=16, width=32)
    # Few pairs and many in one batch: with six from the start nothing is learned for a long time.
    taught = replace(RECALLED, pairs=(2, 6), questions=2)
    recall_steps = _teach(recalling, taught, more * STEPS["recall"], generator, between(small, 0.6, 1.0))
    by_length = {
        str(length): _error(copying, replace(LONGER, lengths=(length, length)), generator)
        for length in range(1, 13)
    }
    return {
        "links_error": _links_error(seed),
        "allocation_error": _allocation_error(),
        "repeat_copy_steps": copying_steps,
        "repeat_copy_error": _error(copying, REPEATED, generator),
        "repeat_copy_error_at_8": by_length["8"],
        "repeat_copy_error_by_length": by_length,
        "recall_steps": recall_steps,
        "recall": 1 - _error(recalling, RECALLED, generator),
        **weights_over(copying, replace(LONGER, lengths=(6, 6), repeats=(3, 3)).batch(1, generator)),
        **(babi_jointly(seed, between(advance, 0.1, 1.0)) if full else {}),
    }


def _network(task: Task, slots: int, width: int) -> MemoryAugmented:
    return with_controller(task, DNC(HIDDEN, slots, width))


def _teach(
    network: MemoryAugmented, task: Task, steps: int, generator: torch.Generator, advance: Advance
) -> int:
    def loss(step: int) -> Tensor:
        batch = task.batch(ROWS, generator)
        return task.loss(network(batch.inputs)[0], batch)  # padding comes after all that is scored

    return fit(network, loss, steps, learning_rate=1e-2, inertia=0.99, advance=advance)


@torch.no_grad()
def _error(network: MemoryAugmented, task: Task, generator: torch.Generator) -> float:
    batch = task.batch(500, generator)
    return task.error(network(batch.inputs)[0], batch)


def _links_error(seed: int) -> float:
    """How far the order of three writes is from being followed exactly, either way."""
    slots = torch.eye(6)[torch.randperm(6, generator=torch.Generator().manual_seed(seed))[:3]]
    links, precedence = torch.zeros(1, 1, 6, 6), torch.zeros(1, 1, 6)
    for slot in slots:
        links, precedence = (
            links_after(links, precedence, slot.view(1, 1, 6)),
            precedence_after(precedence, slot.view(1, 1, 6)),
        )
    forwards, backwards = (found[0, 0] for found in followed(links, slots.unsqueeze(0)))
    nothing = torch.zeros(1, 6)
    wrong = (forwards - torch.cat([slots[1:], nothing]), backwards - torch.cat([nothing, slots[:-1]]))
    return max(difference.abs().max().item() for difference in wrong)


def _allocation_error() -> float:
    """How far an allocation by usages of 0.2, 0.5 and 0.9 is from the one worked out by hand."""
    found = allocation(torch.tensor([[0.9, 0.5, 0.2]]))
    return (found - torch.tensor([[0.01, 0.1, 0.8]])).abs().max().item()


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """The error of repeat copy by length, beside where one sequence was written and read."""
    from mnemos.report.drawing import FAINT, WITH, curve, drawing

    with drawing(height=2.9, columns=3) as (figure, [line, *maps]):
        line.axvline(REPEATED.lengths[1], color=FAINT, linewidth=1.2)
        curve(line, measured["repeat_copy_error_by_length"], "", WITH)
        line.set_title(f"taught with up to {REPEATED.lengths[1]}")
        line.set_xlabel("length")
        line.set_ylabel("wrong bits, %")
        line.set_ylim(bottom=-1)
        draw_weights(maps, measured)
    return figure


STUDY = Study(
    name="dnc",
    title="A DNC repeats a sequence and recalls by key (Graves et al. 2016)",
    measure=measure,
    thresholds={
        "links_error": Threshold("==", 0.0),
        "allocation_error": Threshold("<", 1e-5),
        "repeat_copy_error": Threshold("<", 0.01),
        "repeat_copy_error_at_8": Threshold("<", 0.1),  # that it goes beyond what was taught; chance is 0.5
        "recall": Threshold(">=", 0.98),
    },
    paper=[],
    draw=draw,
)
