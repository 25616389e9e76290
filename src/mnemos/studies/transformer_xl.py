"""Transformer-XL: a context that reaches further than its segment.

Dai et al. 2019 claim that attention over a carried window sees as far as layers x window, that evaluating
segment by segment loses nothing, and that this can be learned although no gradient enters the memory. A
stack of four layers with window and segment of 32 learns to repeat the token of 96 steps ago, three
segments back. What 160 steps ago was said is beyond its 4 x 32.

The memory is detached between segments, so nothing teaches a lower layer to keep what a later segment will
want: asked for lag 96 alone, the stack stays at chance. It learns once the same stream also asks for short
lags, of which some lie within one segment. That ablation is reported beside the result.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import mnemos
from mnemos.memories.segment_attention import SegmentAttention
from mnemos.ops.relative_attention import relative_attention, relative_attention_naive
from mnemos.progress import Advance, between
from mnemos.studies.lag_copying import CHANCE, VOCABULARY, Stack, learn
from mnemos.studies.study import Figure, Study, Threshold

LAYERS, WIDTH, HEADS = 4, 64, 4
WINDOW = 32  # also the length of a segment
LAGS = (16, 32, 64, 96, 160)
FORMS: list[Callable[..., Tensor]] = [relative_attention, relative_attention_naive]


def stack(window: int, lags: Sequence[int]) -> Stack:
    return Stack([SegmentAttention(WIDTH, window=window, heads=HEADS) for _ in range(LAYERS)], lags)


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
        name: learn(stack(window, asked), window, steps, generator, progress, carries=carries)
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


def _exactness(generator: torch.Generator) -> dict[str, float]:
    """Segments against one shot, the shifted form against the naive one, and the gradient of a memory."""
    whole_stack = stack(WINDOW, LAGS)
    tokens = torch.randint(VOCABULARY, (2, 5 * WINDOW), generator=generator)
    with torch.no_grad():
        for memory in whole_stack.memories:
            memory.naive = True  # in one shot, every pair of steps on its own
        whole, _ = whole_stack(tokens, None)
        for memory in whole_stack.memories:
            memory.naive = False
        differences = []
        for lengths in ([WINDOW] * 5, [1, 50, 3, 2 * WINDOW, 3 * WINDOW - 54]):
            pieces, states = [], None
            for piece in tokens.split(lengths, dim=1):
                logits, states = whole_stack(piece, states)
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
