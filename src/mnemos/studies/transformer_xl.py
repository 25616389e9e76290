"""Transformer-XL: a context that reaches further than its segment.

Dai et al. 2019 claim that attention over a carried window sees as far as layers x window, that evaluating
segment by segment loses nothing, and that this can be learned although no gradient enters the memory. A
stack of four layers with window and segment of 32 learns to repeat the token of 96 steps ago, three
segments back. What 160 steps ago was said is beyond its 4 x 32.

The memory is detached between segments, so nothing teaches a lower layer to keep what a later segment will
want: asked for lag 96 alone, the stack stays at chance. It learns once the same stream also asks for short
lags, of which some lie within one segment. That ablation is reported beside the result.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import mnemos
from mnemos.memories.segment_attention import SegmentAttention
from mnemos.models.transformer import Block
from mnemos.ops.relative_attention import relative_attention, relative_attention_naive
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit, mean
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks import lagging

LAYERS, WIDTH, HEADS, ROWS, VOCABULARY = 4, 64, 4, 16, 8
WINDOW = 32  # also the length of a segment
LAGS = (16, 32, 64, 96, 160)
CHANCE = 1 / VOCABULARY
FORMS: list[Callable[..., Tensor]] = [relative_attention, relative_attention_naive]


class Stack(nn.Module):
    """Tokens in, one guess per lag out."""

    def __init__(self, window: int, lags: Sequence[int]) -> None:
        super().__init__()
        self.memories = [SegmentAttention(WIDTH, window=window, heads=HEADS) for _ in range(LAYERS)]
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block(memory, WIDTH) for memory in self.memories)
        self.norm, self.output = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, len(lags) * VOCABULARY)
        self.lags = tuple(lags)

    def forward(self, tokens: Tensor, states: tuple[Any, ...] | None) -> tuple[Tensor, tuple[Any, ...]]:
        hidden, after = self.embedding(tokens), []
        for block, state in zip(self.blocks, states or [None] * LAYERS, strict=True):
            hidden, _, state = block(hidden, state, None, None)
            after.append(state)
        logits = self.output(self.norm(hidden))
        return logits.unflatten(-1, (len(self.lags), VOCABULARY)), tuple(after)


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    scale = 2 if full else 1
    steps, window, lags = 600 * scale, WINDOW * scale, [lag * scale for lag in LAGS]
    beyond, longest = lags[-1], lags[-2]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    measured: dict[str, Any] = {"window": window, "lag": longest, "lag_beyond": beyond, "steps": steps}
    measured |= _exactness(generator)
    runs = {
        "with_memory": (lags, True, between(advance, 0.0, 0.35)),
        "without_memory": (lags, False, between(advance, 0.35, 0.65)),
        "longest_lag_alone": ([longest], True, between(advance, 0.65, 1.0)),
    }
    accuracies = {
        name: _learn(Stack(window, asked), window, carries, steps, generator, progress)
        for name, (asked, carries, progress) in runs.items()
    }
    without = accuracies["without_memory"]
    measured |= {
        "accuracy": accuracies["with_memory"][longest],
        "accuracy_beyond": accuracies["with_memory"][beyond],
        "accuracy_without_memory": max(accuracy for lag, accuracy in without.items() if lag >= window),
        "accuracy_longest_lag_alone": accuracies["longest_lag_alone"][longest],
        "accuracies": {name: {str(lag): x for lag, x in by.items()} for name, by in accuracies.items()},
        "chance": CHANCE,
    }
    return measured


def _learn(
    stack: Stack, window: int, carries: bool, steps: int, generator: torch.Generator, advance: Advance
) -> dict[int, float]:
    """Trains on one stream, a segment per step, and returns the accuracy by lag on a stream of its own."""
    stream = lagging.segments(ROWS, window, stack.lags, VOCABULARY, generator)
    carried: tuple[Any, ...] | None = None

    def loss(step: int) -> Tensor:
        nonlocal carried
        tokens, targets = next(stream)
        logits, states = stack(tokens, mnemos.detach(carried) if carried else None)
        carried = states if carries else None
        return functional.cross_entropy(logits.flatten(0, 2), targets.flatten())

    fit(stack, loss, steps, learning_rate=3e-3, advance=advance)
    unseen = lagging.segments(ROWS, window, stack.lags, VOCABULARY, generator)
    right = list(_answers(stack, unseen, carries, segments=60))[10:]  # the first lags lie before the stream
    return {
        lag: mean(answers[:, :, i].double().mean() for answers in right) for i, lag in enumerate(stack.lags)
    }


@torch.no_grad()
def _answers(
    stack: Stack, stream: Iterator[tuple[Tensor, Tensor]], carries: bool, segments: int
) -> Iterator[Tensor]:
    """Which guesses were right, segment by segment."""
    states = None
    for _ in range(segments):
        tokens, targets = next(stream)
        logits, after = stack(tokens, states)
        states = after if carries else None
        yield logits.argmax(-1) == targets


def _exactness(generator: torch.Generator) -> dict[str, float]:
    """Segments against one shot, the shifted form against the naive one, and the gradient of a memory."""
    stack = Stack(WINDOW, LAGS)
    tokens = torch.randint(VOCABULARY, (2, 5 * WINDOW), generator=generator)
    with torch.no_grad():
        for memory in stack.memories:
            memory.naive = True  # in one shot, every pair of steps on its own
        whole, _ = stack(tokens, None)
        for memory in stack.memories:
            memory.naive = False
        differences = []
        for lengths in ([WINDOW] * 5, [1, 50, 3, 2 * WINDOW, 3 * WINDOW - 54]):
            pieces, states = [], None
            for piece in tokens.split(lengths, dim=1):
                logits, states = stack(piece, states)
                pieces.append(logits)
            differences.append(_distance(torch.cat(pieces, dim=1), whole))
    return {
        "split_difference": max(differences),
        "shift_difference": _shift_difference(generator),
        "memory_gradient": _memory_gradient(generator),
    }


def _shift_difference(generator: torch.Generator) -> float:
    """The greatest difference of values and gradients at sizes that fit no block."""
    worst = 0.0
    for time, window in ((1, 5), (7, 5), (67, 33), (129, 40)):
        shapes: list[tuple[int, ...]] = [(2, time, 2, 9), (2, time + window, 2, 9), (2, time + window, 2, 7)]
        shapes += [(window + 1, 2, 9), (2, 9), (2, 9)]
        parts = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        document = torch.arange(time + window).div(50, rounding_mode="floor").expand(2, -1)
        forms = [form(*parts, document) for form in FORMS]
        probe = torch.randn(forms[0].shape, generator=generator)
        slopes = [torch.autograd.grad(outputs, parts, probe) for outputs in forms]
        worst = max(worst, _distance(*forms), *(_distance(a, b) for a, b in zip(*slopes, strict=True)))
    return worst


def _memory_gradient(generator: torch.Generator) -> float:
    """What reaches the segment before through a detached state: nothing, although outputs depend on it."""
    memory = SegmentAttention(WIDTH, window=WINDOW, heads=HEADS)
    first, second = torch.randn(2, 2, WINDOW, WIDTH, generator=generator)
    first.requires_grad_()
    _, state = memory(first)
    memory(second, mnemos.detach(state))[0].sum().backward()
    return 0.0 if first.grad is None else first.grad.abs().max().item()


def _distance(left: Tensor, right: Tensor) -> float:
    return (left - right).detach().abs().max().item()


STUDY = Study(
    name="transformer-xl",
    title="A carried window reaches layers x window steps back (Dai et al. 2019)",
    measure=measure,
    thresholds={
        "split_difference": Threshold("<=", 1e-4),
        "shift_difference": Threshold("<=", 1e-4),
        "memory_gradient": Threshold("==", 0.0),
        "accuracy": Threshold(">=", 0.95),
        "accuracy_beyond": Threshold("<=", CHANCE + 0.03),
        "accuracy_without_memory": Threshold("<=", CHANCE + 0.03),
    },
    paper=[
        Figure("bits per character, enwik8", 0.99, "Dai et al. 2019"),
        Figure("perplexity, WikiText-103", 18.3, "Dai et al. 2019"),
        Figure("length of dependencies beyond those of a recurrent network, %", 80, "Dai et al. 2019"),
        Figure(
            "length of dependencies beyond those of a transformer without memory, %", 450, "Dai et al. 2019"
        ),
    ],
)
