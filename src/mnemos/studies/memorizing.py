"""Memorizing Transformer: a name is known 4,000 steps after the page that said what it means.

Wu et al. 2022 claim that attention to the best of many thousand old keys finds what was defined far outside
of the context, although no gradient ever enters the memory, and that the memory can be made larger when the
model is used. A layer with a context of 128 steps and 1,024 slots learns from documents in which names are
used again up to 1,024 steps after their definition. With 8,192 slots, and not a step of training more, it
then tells what a name means 4,096 steps after its only definition, among as many words that mean nothing.

How a key is made is taught by names that are used twice within one context. The memory adds no parameter to
it, so what is learned there serves at any distance. In the first documents names are used often; in later
ones once, and once again eight pages on, so that a single definition has to do.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import mnemos
from mnemos.memories.base import Memory
from mnemos.memories.combination import Combination, HeadGate, JointSoftmax
from mnemos.memories.memorizing import MemorizingAttention
from mnemos.memories.segment_attention import SegmentAttention
from mnemos.memories.short_convolution import ShortConvolution
from mnemos.models.transformer import Block
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks import definitions

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WIDTH, HEADS, TOP_K = 64, 2, 32
CONTEXT, SLOTS, MORE_SLOTS = 128, 1024, 8192
NAMES, VALUES = 8, 16
MANY, FEW = (48, 0, 0, 0, 48), (8, 0, 0, 0, 0, 0, 0, 0, 8)  # uses of names by piece of a document
ROWS, STEPS = 8, 400
DISTANCES = (512, 1024, 2048, 4096)
CHANCE = 1 / VALUES
COMBINATIONS: dict[str, Callable[[], Combination]] = {
    "gate": lambda: HeadGate(HEADS),
    "joint": JointSoftmax,
}


class Reader(nn.Module):
    """Tokens in, a guess at the value of the name at hand out."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.embedding = nn.Embedding(definitions.vocabulary(NAMES, VALUES), WIDTH)
        # The first layer tells a value which name stood before it.
        self.blocks = nn.ModuleList(Block(layer, 2 * WIDTH) for layer in (ShortConvolution(WIDTH, 2), memory))
        self.norm, self.output = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, VALUES)

    def forward(self, tokens: Tensor, states: tuple[Any, ...] | None) -> tuple[Tensor, tuple[Any, ...]]:
        hidden, after = self.embedding(tokens), []
        for block, state in zip(self.blocks, states or [None] * len(self.blocks), strict=True):
            hidden, _, state = block(hidden, state, None, None)
            after.append(state)
        return self.output(self.norm(hidden)), tuple(after)


def memorizing(slots: int, combination: Combination, context: int = CONTEXT) -> MemorizingAttention:
    return MemorizingAttention(
        WIDTH, window=context - 1, slots=slots, top_k=TOP_K, heads=HEADS, combination=combination
    )


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    distances = (*DISTANCES, 8192, 16384) if full else DISTANCES
    more = 4 * MORE_SLOTS if full else MORE_SLOTS
    return measure_at(distances, SLOTS, more, 2 * STEPS if full else STEPS, seed, advance)


def measure_at(
    distances: tuple[int, ...], slots: int, more: int, steps: int, seed: int, advance: Advance
) -> dict[str, Any]:
    """`measure` with distances, slots and a number of steps of one's own."""
    measured: dict[str, Any] = {"slots": slots, "more_slots": more, "steps": steps, "accuracies": {}}
    by = measured["accuracies"]
    for number, name in enumerate((*COMBINATIONS, "without")):
        torch.manual_seed(seed)
        build = COMBINATIONS.get(name)
        without = SegmentAttention(WIDTH, window=CONTEXT - 1, heads=HEADS)
        reader = Reader(memorizing(slots, build()) if build else without)
        _teach(reader, steps, seed, between(advance, number / 3, (number + 0.5) / 3))
        tried = {name: reader}
        if build:
            tried[f"{name}_more_slots"] = Reader(memorizing(more, build()))
            tried[f"{name}_more_slots"].load_state_dict(reader.state_dict())
        for label, one in tried.items():
            by[label] = {str(distance): _accuracy(one, distance, seed + 1) for distance in distances}
    near, far = str(min(distances)), str(max(distances))
    return measured | {
        "distance": max(distances),
        "accuracy": by["gate_more_slots"][far],
        "accuracy_joint": by["joint_more_slots"][far],
        "accuracy_without": by["without"][far],
        "change_by_more_slots": by["gate_more_slots"][near] - by["gate"][near],
        "change_by_more_slots_joint": by["joint_more_slots"][near] - by["joint"][near],
        "full_attention_difference": _difference_from_full_attention(seed),
        "chance": CHANCE,
    }


def _teach(reader: Reader, steps: int, seed: int, advance: Advance) -> None:
    """Documents piece by piece; no gradient goes from one piece into the one before."""
    generator = torch.Generator().manual_seed(seed)
    many, few = (definitions.documents(ROWS, CONTEXT, uses, NAMES, VALUES, generator) for uses in (MANY, FEW))
    states: tuple[Any, ...] | None = None

    def loss(step: int) -> Tensor:
        nonlocal states
        while True:
            piece = next(many if step < 0.6 * steps else few)
            logits, states = reader(piece.tokens, None if piece.begins else mnemos.detach(states))
            if (piece.targets >= 0).any():
                targets = piece.targets.flatten()
                return functional.cross_entropy(logits.flatten(0, 1), targets, ignore_index=-1)

    fit(reader, loss, steps, learning_rate=1e-2, advance=advance)


@torch.no_grad()
def _accuracy(reader: Reader, distance: int, seed: int) -> float:
    """How many values are right at the second use of a name, at least so many steps after the first."""
    generator = torch.Generator().manual_seed(seed)
    uses = (NAMES, *[0] * (distance // CONTEXT), NAMES)
    states = None
    stream = definitions.documents(4 * ROWS, CONTEXT, uses, NAMES, VALUES, generator)
    for piece, _ in zip(stream, uses, strict=False):
        logits, states = reader(piece.tokens, states)
    asked = piece.targets >= 0
    return (logits.argmax(2) == piece.targets)[asked].double().mean().item()


@torch.no_grad()
def _difference_from_full_attention(seed: int) -> float:
    """With as many to be found as there are slots, against one softmax over all steps, in float64."""
    torch.manual_seed(seed)
    memory = memorizing(100, JointSoftmax(), context=20).double()
    memory.top_k = 100
    inputs = torch.randn(2, 120, WIDTH, dtype=torch.float64)
    queries, keys, values = (
        layer(inputs).unflatten(2, (HEADS, -1)).transpose(1, 2)
        for layer in (memory.query, memory.key, memory.value)
    )
    scores = functional.normalize(queries, dim=3) @ functional.normalize(keys, dim=3).mT
    scores = scores * memory.sharpness.exp().view(-1, 1, 1)
    later = torch.ones(120, 120, dtype=torch.bool).triu(1)
    read = (scores.masked_fill(later, -torch.inf).softmax(3) @ values).transpose(1, 2).flatten(2)
    return (memory(inputs)[0] - memory.output(read)).abs().max().item()


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """The share of names that are known, by the distance from their only definition."""
    from mnemos.report.drawing import FAINT, TUNED, WITH, WITHOUT, drawing

    lines = {
        "gate_more_slots": (WITH, f"{measured['more_slots']:,} slots"),
        "gate": (TUNED, f"{measured['slots']:,} slots, as taught"),
        "without": (WITHOUT, "no memory"),
    }
    with drawing(height=2.9) as (figure, [axes]):
        axes.axhline(100 * measured["chance"], color=FAINT, linewidth=1.2)
        for name, (colour, text) in lines.items():
            by = measured["accuracies"][name]
            distances, shares = [int(x) for x in by], [100 * x for x in by.values()]
            axes.plot(distances, shares, color=colour, linewidth=1.6, marker="o", markersize=3.5, label=text)
        axes.set_xscale("log", base=2)
        axes.set_xticks(distances, [f"{distance:,}" for distance in distances])
        axes.minorticks_off()
        axes.set_ylim(0, 105)
        axes.legend(frameon=False, loc="center left")
        axes.set_xlabel("steps since the only definition of a name; the context is 128")
        axes.set_ylabel("values that are right, %")
    return figure


STUDY = Study(
    name="memorizing-transformer",
    title="A name is known 4,000 steps after its definition, with a context of 128 (Wu et al. 2022)",
    measure=measure,
    thresholds={
        "accuracy": Threshold(">=", 0.95),
        "accuracy_joint": Threshold(">=", 0.95),
        "accuracy_without": Threshold("<=", 2 * CHANCE),
        "change_by_more_slots": Threshold(">=", 0.0),
        "change_by_more_slots_joint": Threshold(">=", 0.0),
        "full_attention_difference": Threshold("<=", 1e-5),
    },
    paper=[
        Figure("perplexity, arXiv-math, context 512, no memory", 3.725, "Wu et al. 2022"),
        Figure("perplexity, arXiv-math, context 512, memory 8,192", 2.927, "Wu et al. 2022"),
        Figure("perplexity, arXiv-math, context 512, memory 131,072", 2.849, "Wu et al. 2022"),
    ],
    draw=draw,
)
