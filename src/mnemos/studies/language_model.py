"""The same small decoder with every memory, on novels: what a byte costs, and how far back that reaches.

Every decoder has two layers of one kind, each between a short convolution, a norm and a gate, and as many
parameters as the others, to within a part in a hundred: what a memory needs more or less for itself the
feed-forward networks give or get. All read the same pieces of the same novels, and every memory goes on from
piece to piece, and begins empty as often as where it is judged. Attention sees as many steps as a piece has,
so that what only a carried state can know is apart. Transformer-XL is tried without its memory too, which the
paper's figures are about: then there is nothing before a piece. The control sees the three steps before each,
through the convolution, and no more.

Scaled down, to some hours on one core, which may be interrupted (`--keep`): a part of one pass over a few
novels. What a decoder of this size wins at the beginning of its training says little of what it would win at
the end, so that only the best memory is asked to win over the control: attention has hardly begun by then.
"""

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mnemos.memories import Memory, RotaryAttention
from mnemos.models.hybrid import LAYERS
from mnemos.models.mixer import Mixer
from mnemos.models.transformer import Transformer, feed_forward_of
from mnemos.progress import Advance, between
from mnemos.studies.novel_reading import VOCABULARY, bits, learn, read_novels
from mnemos.studies.parts import part
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tree import tensors

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WIDTH, HEADS, DEPTH = 128, 4, 2
LENGTH = 128  # steps of a piece, and what attention sees
STEPS, FULL_STEPS = 2000, 20_000
CONVOLUTION = "convolution"  # no name of a layer: a mixer whose memory sees its own step and no other
CONTROL, ATTENTION, BOTH = "convolution alone", "attention", "gated delta, then attention"
CARRIED, NOT_CARRIED = "Transformer-XL", "Transformer-XL, not carried"
KINDS = {
    CONTROL: CONVOLUTION,
    ATTENTION: "attention",
    CARRIED: "segment-attention",
    NOT_CARRIED: "segment-attention",
    "compressive": "compressive-memory",
    "memorizing": "memorizing-attention",
    "linear attention": "linear-attention",
    "delta rule": "delta-rule",
    "gated delta": "gated-delta",
    "Kimi delta": "kimi-delta",
    "gated delta 2": "gated-delta-2",
    "Titans": "titans",
    "Titans, MAC": "titans-mac",
    "Titans, MAG": "titans-mag",
    "Titans, MAL": "titans-mal",
    "TTT-Linear": "ttt-linear",
    "TTT-MLP": "ttt-mlp",
    "S4D": "s4d",
    "selective state space": "selective-state-space",
    "LSTM": "lstm",
    BOTH: "gated-delta attention",
}
PLACES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # where the ranges of steps end that are reported


def decoder(layers: str, parameters: int | None = None, length: int = LENGTH) -> Transformer:
    """Two layers of the kinds named.

    Args:
        parameters: as many as the decoder is to have, by the width of its feed-forward networks; None is a
            network as wide as usual.
        length: steps of a piece, and what attention sees.
    """
    names = layers.split() or [CONVOLUTION]

    def mixer(name: str) -> Memory:
        alone = name == CONVOLUTION
        memory = RotaryAttention(WIDTH, HEADS, window=1) if alone else LAYERS[name](WIDTH, HEADS, length)
        return memory if isinstance(memory, Mixer) else Mixer(memory)

    def build(feed_forward: int) -> Transformer:
        memories = [mixer(names[number % len(names)]) for number in range(DEPTH)]
        return Transformer(VOCABULARY, memories, feed_forward, length)

    if parameters is None:
        return build(feed_forward_of(WIDTH))
    least, more = (parameters_of(build(feed_forward)) for feed_forward in (1, 2))
    return build(1 + max(0, round((parameters - least) / (more - least))))


def parameters_of(network: Transformer) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    advance(0.0, "reading novels")
    train, test = read_novels(60 if full else 12)
    return measure_at(train, test, PLACES, FULL_STEPS if full else STEPS, seed, advance)


def measure_at(
    train: list[Tensor],
    test: list[Tensor],
    places: tuple[int, ...],
    steps: int,
    seed: int,
    advance: Advance,
    length: int = LENGTH,
) -> dict[str, Any]:
    """`measure` with texts, ranges, a number of steps and a length of pieces of one's own."""
    rows: dict[str, dict[str, Any]] = {}
    equal = parameters_of(decoder(KINDS[ATTENTION], length=length))
    for number, (name, layers) in enumerate(KINDS.items()):
        progress = between(advance, number / len(KINDS), (number + 1) / len(KINDS))
        read = partial(_read, layers, equal, train, test, places, steps, seed, progress, length)
        rows[name] = part(name, partial(read, carries=name != NOT_CARRIED))
    far = {name: list(row["bits_by_place"].values())[-1] for name, row in rows.items()}
    won = {name: far[CONTROL] - far[name] for name in KINDS if name != CONTROL}
    return {
        "steps": steps,
        "kinds": rows,
        "unequal": max(abs(row["parameters"] / equal - 1) for row in rows.values()),
        "most_won_by_memory": max(won.values()),
        "least_won_by_memory": min(won.values()),
        "won_by_carrying": far[NOT_CARRIED] - far[CARRIED],
        "won_by_both": far[ATTENTION] - far[BOTH],
    }


def _read(
    layers: str,
    parameters: int,
    train: list[Tensor],
    test: list[Tensor],
    places: tuple[int, ...],
    steps: int,
    seed: int,
    advance: Advance,
    length: int,
    *,
    carries: bool,
) -> dict[str, Any]:
    """What one kind costs, taught and judged."""
    torch.manual_seed(seed)
    network = decoder(layers, parameters, length)
    started = time.process_time()
    chosen, judged = (torch.Generator().manual_seed(seed) for _ in range(2))
    learn(network, train, steps, chosen, advance, longest=places[-1], carries=carries)
    cost = bits(network, test, places, length, judged, carries=carries)
    return {
        "bits": cost.overall,
        "bits_by_place": cost.by_place,
        "parameters": parameters_of(network),
        "state": sum(tensor.numel() for tensor in tensors(network.initial_state(1))),
        "seconds": time.process_time() - started,
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Left what a byte costs with every memory; right the same by how much the memory has seen."""
    from mnemos.report.drawing import FAINT, INK, WITH, WITHOUT, drawing, label

    rows = measured["kinds"]
    order = sorted(rows, key=lambda name: rows[name]["bits"])
    special = {CONTROL: WITHOUT, ATTENTION: INK, order[0]: WITH}
    with drawing(4.2, columns=2) as (figure, (left, right)):
        costs = [rows[name]["bits"] for name in order]
        left.barh(order, costs, color=[special.get(name, FAINT) for name in order], height=0.6)
        left.invert_yaxis()
        left.set_xlim(min(costs) - 0.1, max(costs) + 0.02)
        left.set_xlabel("bits per byte")
        for name in reversed(order):
            by = rows[name]["bits_by_place"]
            places, bits = [int(place) for place in by], list(by.values())
            colour = special.get(name, FAINT)
            right.plot(places, bits, color=colour, linewidth=1.6 if name in special else 0.9)
            if name in special:
                label(right, places[-1], bits[-1], name, colour)
        right.set_xscale("log", base=2)
        right.set_xlabel("bytes that the memory has seen, up to")
    return figure


STUDY = Study(
    name="language-model",
    title="The same small decoder with every memory, on novels, at equal parameters",
    measure=measure,
    thresholds={
        "unequal": Threshold("<=", 0.01),
        "most_won_by_memory": Threshold(">=", 0.03),
        "won_by_carrying": Threshold(">", 0.0),
        "won_by_both": Threshold(">", 0.0),
    },
    paper=[
        Figure(
            "bits per character, enwik8, 12 layers of Transformer-XL, 41 million", 1.06, "Dai et al. 2019"
        ),
        Figure("the same without memory, 12 layers, 44 million", 1.11, "Al-Rfou et al. 2019"),
    ],
    draw=draw,
)
