"""Sparse access memory: a step and its way back cost the same at a thousand slots and at a million.

Rae et al. 2016, sections 3 and 4.1, figure 1. A step is one of a stretch, forward and backward, of a memory
every slot of which holds something; the copy of the slots that a stretch begins with, and the building of an
index, are not counted, and are given for themselves. Times are processor time. Beside it stand its own twin,
which makes a new table at every step, and what the paper compares with: a Neural Turing Machine of the same
size, which reads and writes all slots. Then it learns with 10,000 slots: to copy, sequences that grow longer
as they are mastered, and to recall what came after an item.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mnemos.memories.ntm import NTM
from mnemos.memories.recurrent import Recurrent
from mnemos.memories.sam import SAM, SAMState
from mnemos.memories.slot_search import IndexedSearch
from mnemos.memories.stepped import StateByState, SteppedMemory
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.ops.sparse_access import nearest_slots
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.algorithms import Copy
from mnemos.tasks.recall import AssociativeRecall
from mnemos.tasks.task import BitTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SIZES = (1_000, 16_384, 262_144, 1_048_576)
PROBES = 8
INPUTS = 100
REPEATS = 3
LEARNED_AT = 10_000  # slots
MASTERED = 0.1  # nats a bit, of late: sequences then grow longer by one


class Lesson(NamedTuple):
    """What is learned with many slots."""

    task: Callable[[int], BitTask]  # by the greatest size of its sequences
    first: int  # the greatest size that is taught first
    last: int
    heads: int
    learning_rate: float
    steps: int  # at most


LESSONS = {
    "copy": Lesson(lambda length: Copy(4, (1, length)), 3, 10, heads=1, learning_rate=5e-3, steps=8000),
    # With few items first an LSTM learns to do without the memory.
    "recall": Lesson(
        lambda items: AssociativeRecall(6, 1, (2, items)), 6, 6, heads=2, learning_rate=1e-2, steps=3000
    ),
}


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    torch.manual_seed(seed)
    measured = _times(between(advance, 0.0, 0.3))
    advance(0.3, "what 100 steps store")
    measured |= _storage()
    measured |= _twin() | _index()
    measured |= _learned("copy", seed, between(advance, 0.35, 0.7))
    return measured | _learned("recall", seed, between(advance, 0.7, 1.0))


def filled(slots: int, **given: Any) -> tuple[SAM, SAMState]:
    """A memory, and a state of it every slot of which holds something."""
    memory = SAM(INPUTS, slots, **given)
    state = memory.initial_state(1)
    return memory, state._replace(memory=torch.randn(state.memory.shape))


def _times(advance: Advance) -> dict[str, Any]:
    """Milliseconds of a step, by slots, for both ways to search and at the largest for the dense twin."""
    found: dict[str, dict[str, float]] = {"exact": {}, "indexed": {}, "dense": {}}
    begins = {}
    for number, slots in enumerate(SIZES):
        exact, state = filled(slots)
        indexed, dense = SAM(INPUTS, slots, probes=PROBES), SAM(INPUTS, slots)
        dense.naive = True
        advance(number / len(SIZES), f"timing {slots:,} slots")
        for name, memory, steps in (("exact", exact, 20), ("indexed", indexed, 20), ("dense", dense, 4)):
            runs = [seconds(memory, state, steps) for _ in range(REPEATS)]
            begin, rest = (statistics.median(times) for times in zip(*runs, strict=True))
            found[name][str(slots)] = 1000 * rest / steps
            begins[name] = 1000 * begin
    advance(0.8, f"timing a Neural Turing Machine of {SIZES[-1]:,} slots")
    turing = NTM(INPUTS, SIZES[-1], 32, read_heads=4, write_heads=4)
    _, taken = seconds(turing, turing.initial_state(1), 2)
    most, least = str(SIZES[-1]), str(SIZES[0])
    return {
        "milliseconds": found,
        "begin_milliseconds": begins,
        "turing_milliseconds": 500 * taken,
        "growth_indexed": found["indexed"][most] / found["indexed"][least],
        "growth_dense": found["dense"][most] / found["dense"][least],
        "turing_by_exact": 500 * taken / found["exact"][most],
        "turing_by_indexed": 500 * taken / found["indexed"][most],
        "dense_by_exact": found["dense"][most] / found["exact"][most],
        "dense_by_indexed": found["dense"][most] / found["indexed"][most],
    }


def seconds(memory: SteppedMemory, state: Any, steps: int) -> tuple[float, float]:
    """What it takes to begin, and what the steps take, forward and back."""
    prepared = memory.prepare(torch.randn(steps, 1, INPUTS)).unbind(0)
    start = time.process_time()
    stretch = memory.stretch(state) or StateByState(memory, state)
    begun = time.process_time()
    torch.stack([stretch.step(step, None, None) for step in prepared]).sum().backward()
    return begun - start, time.process_time() - begun


def _index() -> dict[str, float]:
    """The share of the nearest slots that the index finds: of random queries four, of noisy copies one."""
    memory = torch.randn(1, SIZES[-1], 32)
    search = IndexedSearch(PROBES)
    search.build(memory)
    random, chosen = torch.randn(1, 100, 32), torch.randint(SIZES[-1], (100,))
    truth, found = nearest_slots(memory, random, 4), search.nearest(random, 4)
    copies = search.nearest(memory[:, chosen] + 0.1 * torch.randn(1, 100, 32), 1).flatten()
    return {
        "recall_of_random_queries": (found.unsqueeze(3) == truth.unsqueeze(2)).sum().item() / truth.numel(),
        "recall_of_noisy_copies": (copies == chosen).double().mean().item(),
    }


def _storage() -> dict[str, float]:
    """Megabytes that 100 steps keep for the way back, beside the table."""
    kept = {slots: _kept(slots) for slots in (SIZES[0], SIZES[-1])}
    return {
        "megabytes_for_100_steps": kept[SIZES[-1]] / 1e6,
        "megabytes_for_100_steps_at_1000_slots": kept[SIZES[0]] / 1e6,
        "storage_growth": kept[SIZES[-1]] / kept[SIZES[0]],
    }


def _kept(slots: int) -> int:
    memory, state = filled(slots)
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs, after = memory(torch.randn(1, 100, INPUTS), state)
    noted = 8 * 100 * memory.heads * (2 * memory.top_k + 2)  # the numbers of slots that a tape keeps
    del outputs, after
    return sum(sizes.values()) + noted


def _twin() -> dict[str, float]:
    """How far values and gradients lie from the dense twin's, and how many numbers of a state changed."""
    memory, state = filled(64)
    inputs, start = torch.randn(1, 100, INPUTS, requires_grad=True), state.memory.clone()
    gradients, untouched = [], True
    for naive in (False, True):
        memory.naive = naive
        begin = state.memory.detach().requires_grad_()
        outputs, after = memory(inputs, state._replace(memory=begin))
        end = after.memory.detach().clone()
        loss = outputs.square().sum() + after.memory.square().sum()
        gradients.append(torch.autograd.grad(loss, [inputs, begin, *memory.parameters()]))
        untouched &= torch.equal(state.memory, start) and torch.equal(after.memory.detach(), end)
    distances = [(a - b).abs().max() / b.abs().max() for a, b in zip(*gradients, strict=True)]
    return {"gradient_difference": max(x.item() for x in distances), "tables_untouched": float(untouched)}


def _learned(name: str, seed: int, advance: Advance) -> dict[str, float]:
    """The steps that a lesson took, and the share of bits that are wrong in the end."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    lesson = LESSONS[name]
    whole, memory = lesson.task(lesson.last), SAM(100, LEARNED_AT, 20, heads=lesson.heads)
    controller = Recurrent(whole.input_size + memory.output_size, 100)
    network = MemoryAugmented(controller, memory, whole.output_size)
    size, recent = lesson.first, 0.7

    def loss(step: int) -> Tensor:
        nonlocal size, recent
        task = lesson.task(size)
        batch = task.batch(16, generator)
        value = task.loss(network(batch.inputs, mask=batch.real)[0], batch)
        recent = 0.98 * recent + 0.02 * value.item()
        if recent < MASTERED and size < lesson.last:
            size, recent = size + 1, 3 * MASTERED
        return value

    @torch.no_grad()
    def error(rows: int) -> float:
        batch = whole.batch(rows, generator)
        return whole.error(network(batch.inputs, mask=batch.real)[0], batch)

    def done(step: int) -> bool:
        return step % 200 == 0 and size == lesson.last and error(100) < 0.002

    rate = lesson.learning_rate
    steps = fit(
        network, loss, lesson.steps, learning_rate=rate, clip=10.0, inertia=0.99, advance=advance, done=done
    )
    return {f"{name}_steps": steps, f"{name}_error": error(1000)}


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Time a step by the number of slots."""
    from mnemos.report.drawing import TUNED, WITH, WITHOUT, drawing, label

    lines = (
        ("dense", WITHOUT, "its dense twin"),
        ("exact", WITH, "exact search"),
        ("indexed", TUNED, "index"),
    )
    with drawing(height=2.9) as (figure, [axes]):
        for name, colour, text in lines:
            slots = [int(size) for size in measured["milliseconds"][name]]
            times = list(measured["milliseconds"][name].values())
            axes.loglog(slots, times, color=colour, linewidth=1.6, marker="o", markersize=3.5)
            label(axes, slots[-1], times[-1], text, colour)
        turing = measured["turing_milliseconds"]
        axes.plot(slots[-1:], [turing], color=WITHOUT, marker="s", markersize=4.5)
        label(axes, slots[-1], turing, "Neural Turing Machine", WITHOUT)
        axes.set_xlim(700, 1.6e7)
        axes.set_xlabel("slots, of 32 numbers each")
        axes.set_ylabel("a step and back, ms")
    return figure


STUDY = Study(
    name="sam",
    title="Sparse access: a step costs the same at a thousand slots and at a million (Rae et al. 2016)",
    measure=measure,
    thresholds={
        "growth_indexed": Threshold("<", 3),
        "dense_by_exact": Threshold(">=", 50),
        "dense_by_indexed": Threshold(">=", 200),
        "megabytes_for_100_steps": Threshold("<", 67),  # 64 MiB
        "storage_growth": Threshold("<=", 1.1),
        "gradient_difference": Threshold("<=", 1e-5),
        "tables_untouched": Threshold("==", 1),
        "copy_error": Threshold("<", 0.01),
        "recall_error": Threshold("<", 0.01),
    },
    paper=[
        Figure(
            "a step at a million slots, dense by k-d trees", "1,600 times", "Rae et al. 2016, section 4.1"
        ),
        Figure("the same by an exact index", "over 100 times", "Rae et al. 2016, section 4.1"),
        Figure("memory for 100 steps at 64k slots, dense", "29 GiB", "Rae et al. 2016, section 4.1"),
        Figure("memory for 100 steps at 64k slots, sparse", "7.8 MiB", "Rae et al. 2016, section 4.1"),
    ],
    draw=draw,
)
