"""Recurrent memories: facts are known many segments later, and associations hold more of them than tokens.

Bulatov et al. 2022 claim that memory tokens which are handed from segment to segment carry what was said in
one of them to another, as far as training went and beyond; Rodkin et al. 2024 that associations in layers
hold more than memory tokens do, and are found again after many more segments than were taught.

Pairs of a key and a value are told, two in a segment of four tokens, with segments that mean nothing anywhere
among them; then a segment asks for up to four of the keys. No attention sees farther than its segment, so who
remembers nothing guesses. As in both papers, documents grow with what has been learned: first one segment of
pairs, at last four and up to four of nothing. Then it is asked, without one more step of training, when four
times as many segments have passed since the pairs and sixteen times, and for two and four times as many
pairs.

How far memory tokens go beyond what was taught is measured and not asked for. Nothing here teaches a network
to keep what it holds through more segments than four, and it need not.

Attention over the whole document is what could be known. It has no positions for documents that are longer
than those it was taught on.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mnemos.memories.associative_recurrent_memory import AssociativeRecurrentMemory
from mnemos.memories.base import Memory
from mnemos.memories.recurrent_memory import RecurrentMemory
from mnemos.memories.short_convolution import ShortConvolution
from mnemos.models.transformer import Block
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.segmented_recall import SegmentedRecall

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WIDTH, HEADS, SEGMENT = 64, 2, 4
SLOTS, WRITERS, KEY_SIZE = 8, 2, 32  # memory tokens of RMT, those of ARMT, and the width of its keys
LESSONS = ((2, 0), (2, 1), (4, 1), (4, 2), (8, 2), (8, 4))  # pairs, and segments of nothing at most
TOKENS = 1024  # in a step, memory tokens left out
STEPS, CHECK, LEARNED, ENOUGH = 3000, 50, 0.9, 0.995
RATE = 2e-3  # at 5e-3 memory tokens may never find which value belongs to a key
GAPS, PAIRS = (1, 4, 16, 64), (2, 4, 8, 16, 32)
ROWS = 256  # documents that each share of right answers is of
KEYS, VALUES = 32, 8
CHANCE = 1 / VALUES

ARMS: dict[str, Callable[[], Memory]] = {
    "recurrent": lambda: RecurrentMemory(WIDTH, segment_size=SEGMENT, slots=SLOTS, heads=HEADS),
    "associative": lambda: AssociativeRecurrentMemory(
        WIDTH, segment_size=SEGMENT, slots=WRITERS, key_size=KEY_SIZE, heads=HEADS
    ),
    "without": lambda: RecurrentMemory(WIDTH, segment_size=SEGMENT, slots=0, heads=HEADS),
    "whole": lambda: RecurrentMemory(WIDTH, segment_size=1024, slots=0, heads=HEADS),  # one segment is all
}


class Reader(nn.Module):
    """Tokens in, logits of the answers out."""

    def __init__(self, memory: Memory, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        # Tells a value which key stood before it.
        self.before = Block(ShortConvolution(WIDTH, 2), WIDTH)
        self.memory, self.output = memory, nn.Linear(WIDTH, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _, _ = self.before(self.embedding(tokens), None, None, None)
        logits: Tensor = self.output(self.memory(hidden)[0])
        return logits


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    lessons = (*LESSONS, (16, 8)) if full else LESSONS
    return measure_at(lessons, GAPS, PAIRS, 3 * STEPS if full else STEPS, seed, advance)


def measure_at(
    lessons: tuple[tuple[int, int], ...],
    gaps: tuple[int, ...],
    pairs: tuple[int, ...],
    steps: int,
    seed: int,
    advance: Advance,
) -> dict[str, Any]:
    """`measure` with lessons, distances, pairs and a number of steps of one's own."""
    told, gap = lessons[-1]
    measured: dict[str, Any] = {"pairs": told, "gap": gap, "chance": CHANCE}
    measured |= {"by_gap": {}, "by_pairs": {}, "steps": {}, "parameters": {}}
    for number, (name, build) in enumerate(ARMS.items()):
        torch.manual_seed(seed)
        reader = Reader(build(), task_of(told, gap).vocabulary)
        part = between(advance, number / len(ARMS), (number + 1) / len(ARMS))
        measured["steps"][name] = learn(reader, lessons, steps, seed, part)
        measured["parameters"][name] = sum(parameter.numel() for parameter in reader.parameters())
        measured["by_gap"][name] = {str(x): answered(reader, lessons[0][0], x, seed) for x in gaps}
        measured["by_pairs"][name] = {str(x): answered(reader, x, gap, seed) for x in pairs}
    by_gap, by_pairs = measured["by_gap"], measured["by_pairs"]
    few, far, more = str(lessons[len(lessons) // 2][0]), str(4 * gap), str(2 * told)
    return measured | {
        **{f"accuracy_{name}": by_pairs[name][few] for name in ARMS},
        **{f"far_{name}": by_gap[name][far] for name in ("recurrent", "associative")},
        "farthest_associative": by_gap["associative"][str(max(gaps))],
        "all_pairs_associative": by_pairs["associative"][str(told)],
        "more_pairs_ahead": by_pairs["associative"][more] - by_pairs["recurrent"][more],
    }


def learn(
    reader: Reader, lessons: tuple[tuple[int, int], ...], steps: int, seed: int, advance: Advance
) -> int:
    """Teaches one lesson after the other, the gradient going back to the beginning, and says how many steps
    that took."""
    generator = torch.Generator().manual_seed(seed)
    lesson = 0

    def loss(step: int) -> Tensor:
        pairs, most = lessons[lesson]
        gap = int(torch.randint(most + 1, (), generator=generator))
        task = task_of(pairs, gap, scattered=True)
        segments = 2 * pairs // SEGMENT + gap + 1
        batch = task.tokens(TOKENS // (segments * SEGMENT), generator)
        return task.loss(reader(batch.inputs), batch)

    def done(step: int) -> bool:
        nonlocal lesson
        if step % CHECK:
            return False
        right = answered(reader, *lessons[lesson], seed)
        if lesson < len(lessons) - 1:
            lesson += right > LEARNED
            return False
        return right > ENOUGH

    # A task that grows: see `fit` on inertia.
    return fit(reader, loss, steps, learning_rate=RATE, inertia=0.98, advance=advance, done=done)


@torch.no_grad()
def answered(reader: Reader, pairs: int, gap: int, seed: int) -> float:
    """The share of right answers in documents that it has not learned from."""
    task = task_of(pairs, gap)
    batch = task.tokens(ROWS, torch.Generator().manual_seed(1_000_000 + seed))
    return 1 - task.error(reader(batch.inputs), batch)


def task_of(pairs: int, gap: int, scattered: bool = False) -> SegmentedRecall:
    return SegmentedRecall(SEGMENT, pairs, gap, KEYS, VALUES, scattered)


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """What is known by the distance from where it was told, and by how much was told; shaded where taught."""
    from mnemos.report.drawing import FAINT, INK, TUNED, WITH, WITHOUT, drawing

    looks = {
        "associative": (WITH, "associations (ARMT)"),
        "recurrent": (TUNED, "memory tokens (RMT)"),
        "without": (WITHOUT, "no memory"),
        "whole": (INK, "attention over all"),
    }
    sides = {
        "by_gap": ("segments since two pairs were told", measured["gap"]),
        "by_pairs": (f"pairs told, {measured['gap']} segments ago", measured["pairs"]),
    }
    with drawing(height=2.9, columns=2) as (figure, axes):
        for one, (by, (text, taught)) in zip(axes, sides.items(), strict=True):
            one.axhline(100 * measured["chance"], color=FAINT, linewidth=1.2)
            for name, (colour, label) in looks.items():
                shares = measured[by][name]
                numbers, percents = [int(x) for x in shares], [100 * x for x in shares.values()]
                one.plot(numbers, percents, color=colour, marker="o", markersize=3.5, label=label)
            one.set_xscale("log", base=2)
            one.set_xlim(numbers[0] / 1.15, numbers[-1] * 1.15)
            one.axvspan(numbers[0] / 1.15, taught, color=FAINT, alpha=0.4, linewidth=0)
            one.set_xticks(numbers, [str(number) for number in numbers])
            one.minorticks_off()
            one.set_ylim(0, 105)
            one.set_xlabel(text)
        axes[0].set_ylabel("answers that are right, %")
        axes[0].legend(frameon=False, fontsize=8.5, loc="center")
    return figure


STUDY = Study(
    name="recurrent-memory",
    title="Facts are known many segments later, and associations hold more than tokens (RMT, ARMT)",
    measure=measure,
    thresholds={
        "accuracy_recurrent": Threshold(">=", 0.9),
        "accuracy_associative": Threshold(">=", 0.9),
        "accuracy_whole": Threshold(">=", 0.9),
        "accuracy_without": Threshold("<=", 2 * CHANCE),
        "far_associative": Threshold(">=", 0.9),
        "farthest_associative": Threshold(">=", 0.9),
        "all_pairs_associative": Threshold(">=", 0.9),
        "more_pairs_ahead": Threshold(">=", 0.1),
    },
    paper=[
        Figure(
            "RMT, copy, reverse and associative retrieval over several segments",
            "solved; Transformer-XL degrades with the number of segments",
            "Bulatov et al. 2022, figure 4",
        ),
        Figure("ARMT, one fact among 50 million tokens (BABILong QA1)", 0.799, "Rodkin et al. 2024"),
    ],
    draw=draw,
)
