"""Compressive Transformer: what has left the window is kept four steps to a slot.

Rae et al. 2020 claim that compressed memories reach further than as many uncompressed ones, and that the
compression is best taught by a loss of its own. One layer with a window of 64 steps and 64 compressed blocks
of four learns to repeat the token of 250 steps ago, which no single layer of Transformer-XL with as many
slots, 128, can see. One layer, so that this is a certainty and no question of training: two would reach 256
steps. The guesses cannot teach the compression: what is asked for was compressed three segments ago, where
the gradient stops.

Both losses teach the convolution here. What each of them does alone is reported beside it: what attention
reads of old steps by content alone is mostly their mean, for which their order need not be kept.

The attention-reconstruction loss grows and shrinks with the values that attention reads. So its fall is
measured on the trained network: with the convolution as it was at first, and as it is.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

import mnemos
from mnemos.memories.compression import Compression, Convolution, Expansion, MeanPool
from mnemos.memories.compression_loss import attention_reconstruction_loss, auto_encoding_loss
from mnemos.memories.compressive import CompressiveMemory
from mnemos.memories.segment_attention import SegmentAttention
from mnemos.progress import Advance, between
from mnemos.studies.lag_copying import CHANCE, ROWS, VOCABULARY, Stack, learn
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks import lagging

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WIDTH, HEADS, RATE = 64, 8, 4
WINDOW, LAG = 64, 250  # the window is also the length of a segment, and the number of blocks


class Arm(NamedTuple):
    """A way to teach one layer."""

    compression: type[Compression] | None  # None is Transformer-XL with as many slots
    losses: tuple[str, ...] = ()


ARMS = {
    "convolution": Arm(Convolution, ("attention", "auto_encoding")),
    "convolution_by_auto_encoding_alone": Arm(Convolution, ("auto_encoding",)),
    "convolution_by_attention_alone": Arm(Convolution, ("attention",)),
    "convolution_untaught": Arm(Convolution),
    "mean_pool": Arm(MeanPool),
    "transformer_xl": Arm(None),
}


class Lesson(nn.Module):
    """The losses of a memory inside a stack, for the inputs and the state that it has just been given."""

    def __init__(self, memory: CompressiveMemory, losses: tuple[str, ...]) -> None:
        super().__init__()
        self.losses = losses
        self.decoder = Expansion(memory.input_size, memory.compression.rate)
        self.given: tuple[Any, ...] = ()
        memory.register_forward_pre_hook(self._note)

    def _note(self, memory: nn.Module, given: tuple[Any, ...]) -> None:
        self.given = (memory, *given)

    def forward(self) -> Tensor:
        memory, inputs, state = self.given
        total = inputs.new_zeros(())
        if "attention" in self.losses:
            total = total + attention_reconstruction_loss(memory, inputs, state)
        if "auto_encoding" in self.losses:
            total = total + auto_encoding_loss(memory, self.decoder, inputs, state)
        return total


def build(arm: Arm, window: int, lag: int) -> tuple[Stack, Lesson | None]:
    """One layer and what teaches its compression, which learns as a part of the stack."""
    if arm.compression is None:
        return Stack([SegmentAttention(WIDTH, window=2 * window, heads=HEADS)], [lag]), None
    compression = MeanPool(RATE) if arm.compression is MeanPool else Convolution(WIDTH, RATE)
    memory = CompressiveMemory(WIDTH, window=window, compressed=window, compression=compression, heads=HEADS)
    stack = Stack([memory], [lag])
    if not arm.losses:
        return stack, None
    stack.add_module("lesson", lesson := Lesson(memory, arm.losses))
    return stack, lesson


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    scale = 2 if full else 1
    return measure_at(WINDOW * scale, LAG * scale, 600 * scale, seed, advance)


def measure_at(window: int, lag: int, steps: int, seed: int, advance: Advance) -> dict[str, Any]:
    """`measure` with a window, a lag and a number of steps of one's own."""
    generator = torch.Generator().manual_seed(seed)
    measured: dict[str, Any] = {"window": window, "lag": lag, "steps": steps, "accuracies": {}}
    for number, (name, arm) in enumerate(ARMS.items()):
        torch.manual_seed(seed)
        stack, lesson = build(arm, window, lag)
        at_first = copy.deepcopy(stack)
        progress = between(advance, number / len(ARMS), (number + 1) / len(ARMS))
        found = learn(stack, window, steps, generator, progress, besides=lesson)
        measured["accuracies"][name] = found[lag]
        if name == "convolution":
            measured |= _losses(stack, _layer(at_first).compression, window, lag, generator)
            measured["gradient_into_the_network"] = _leak(stack, window, lag, generator)
    measured |= {
        "accuracy": measured["accuracies"]["convolution"],
        "accuracy_transformer_xl": measured["accuracies"]["transformer_xl"],
        "chance": CHANCE,
    }
    return measured


@torch.no_grad()
def _losses(
    stack: Stack, at_first: Compression, window: int, lag: int, generator: torch.Generator
) -> dict[str, float]:
    """The attention-reconstruction loss of one network with three compressions."""
    memory = _layer(stack)
    inputs = _inputs(stack, window, lag, generator)
    losses = {}
    taught = memory.compression
    for name, compression in (("at_first", at_first), ("taught", taught), ("mean_pool", MeanPool(RATE))):
        memory.compression = compression
        losses[name] = attention_reconstruction_loss(memory, inputs).item()
    memory.compression = taught
    return {
        "attention_loss_at_first": losses["at_first"],
        "attention_loss": losses["taught"],
        "attention_loss_mean_pool": losses["mean_pool"],
        "attention_loss_fall": losses["at_first"] / losses["taught"],
        "attention_loss_over_mean_pool": losses["taught"] / losses["mean_pool"],
    }


def _leak(stack: Stack, window: int, lag: int, generator: torch.Generator) -> float:
    """The most by which the losses of the compression change a gradient outside of it."""
    memory = _layer(stack)
    decoder = Expansion(WIDTH, RATE)
    inputs = _inputs(stack, window, lag, generator)
    with torch.no_grad():
        _, state = memory(inputs)
    others = [
        x for name, x in stack.named_parameters() if ".compression." not in name and "lesson" not in name
    ]
    slopes = []
    for taught in (False, True):
        inputs = _inputs(stack, window, lag, torch.Generator().manual_seed(1))
        outputs, _ = memory(inputs, mnemos.detach(state))
        loss = outputs.square().mean()
        if taught:
            loss = loss + attention_reconstruction_loss(memory, inputs, state)
            loss = loss + auto_encoding_loss(memory, decoder, inputs, state)
        slopes.append(torch.autograd.grad(loss, others, allow_unused=True, materialize_grads=True))
    return max((a - b).abs().max().item() for a, b in zip(*slopes, strict=True))


def _layer(stack: Stack) -> CompressiveMemory:
    [memory] = stack.memories
    assert isinstance(memory, CompressiveMemory)
    return memory


def _inputs(stack: Stack, window: int, lag: int, generator: torch.Generator) -> Tensor:
    """What the layer is given for four segments of an unseen stream."""
    tokens, _ = next(lagging.segments(ROWS, 4 * window, [lag], VOCABULARY, generator))
    normalised: Tensor = stack.blocks[0].before_memory(stack.embedding(tokens))  # type: ignore[operator]
    return normalised


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Accuracy by what teaches the compression, and the loss by compression."""
    from mnemos.report.drawing import FAINT, WITH, WITHOUT, drawing

    names = {
        "convolution": "convolution, both losses",
        "convolution_by_auto_encoding_alone": "auto-encoding alone",
        "convolution_by_attention_alone": "attention reconstruction alone",
        "convolution_untaught": "untaught convolution",
        "mean_pool": "mean pool",
        "transformer_xl": "Transformer-XL",
    }
    with drawing(height=2.6, columns=2) as (figure, [left, right]):
        shares = {names[name]: 100 * share for name, share in measured["accuracies"].items()}
        colours = [WITH if name == "convolution" else WITHOUT for name in measured["accuracies"]]
        left.barh(list(shares), list(shares.values()), color=colours, height=0.6)
        left.axvline(100 * measured["chance"], color=FAINT, linewidth=1.2)
        left.invert_yaxis()
        left.set_xlim(0, 100)
        left.set_xlabel(f"tokens of {measured['lag']} steps ago that are right, %")
        losses = {
            "at first": measured["attention_loss_at_first"],
            "mean pool": measured["attention_loss_mean_pool"],
            "taught": measured["attention_loss"],
        }
        bars = right.bar(list(losses), list(losses.values()), color=[WITHOUT, WITHOUT, WITH], width=0.5)
        right.bar_label(bars, [f"{loss:.3f}" for loss in losses.values()], padding=2)
        right.set_ylabel("attention-reconstruction loss")
    return figure


STUDY = Study(
    name="compressive-transformer",
    title="Blocks of four steps in a slot reach twice as far as the steps themselves (Rae et al. 2020)",
    measure=measure,
    thresholds={
        "accuracy": Threshold(">=", 0.8),
        "accuracy_transformer_xl": Threshold("<=", CHANCE + 0.03),
        "attention_loss_fall": Threshold(">=", 5),
        "attention_loss_over_mean_pool": Threshold("<", 1),
        "gradient_into_the_network": Threshold("==", 0.0),
    },
    paper=[
        Figure("perplexity, WikiText-103", 17.1, "Rae et al. 2020"),
        Figure("bits per character, enwik8", 0.97, "Rae et al. 2020"),
        Figure("perplexity, PG-19; Transformer-XL has 36.3", 33.6, "Rae et al. 2020"),
    ],
    draw=draw,
)
