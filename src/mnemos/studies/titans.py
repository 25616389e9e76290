"""Titans' memory as the only mixer of a small decoder: recall, recall at four times the length, ablations.

Behrouz et al. 2025, "Titans", table 5: without forgetting, without momentum, or with a matrix in place of the
network the memory is worse, in this order. Scaled down: pairs are told at the beginning and asked for later
(Arora et al. 2024), at lengths of up to 64 tokens in training and of 256 afterwards, the questions spread
over all of them, as they are in the last part of the training too. What the equations say is in the tests of
the memory.

What forgetting, momentum and depth gain is reported, and has no threshold: at this scale the paper's order
does not appear from every beginning. Where all kinds begin with changes of one size, momentum gains nothing.

The full form also measures the paper's wirings with attention, which sees no more than 16 tokens: as many as
it takes to tell the pairs, so that in all later ones the memory alone can answer.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from mnemos.memories import MemoryAsContext, MemoryAsGate, MemoryAsLayer, RotaryAttention, Titans
from mnemos.memories.base import Memory
from mnemos.models.mixer import Mixer
from mnemos.models.transformer import Transformer, feed_forward_of
from mnemos.progress import Advance
from mnemos.studies.mqar import SIZES, VOCABULARY, tasks_of, taught
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.multi_query_recall import MultiQueryRecall

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WIDTH, LAYERS, WINDOW = 64, 2, 16


def _titans(width: int, **options: Any) -> Titans:
    memory = Titans(width, key_size=width, value_size=width, **options)
    # At first a change comes to 1/4 of the gradient, with momentum of 1/2 in the end. The start of Titans
    # itself, 1/10, is safe with more kinds of inputs, but recall takes twice as long to begin.
    rate = 1 / 8 if memory.momentum else 1 / 4
    nn.init.constant_(memory.gates["rate"].get_parameter("bias"), math.log(rate / (1 - rate)))
    return memory


WHOLE = "whole"
KINDS: dict[str, Callable[[int], Memory]] = {
    WHOLE: lambda width: Mixer(_titans(width)),
    "no forgetting": lambda width: Mixer(_titans(width, forgetting=False)),
    "no momentum": lambda width: Mixer(_titans(width, momentum=False)),
    "a matrix": lambda width: Mixer(_titans(width, depth=1)),
}
WIRINGS: dict[str, Callable[[int], Memory]] = {
    "as context": lambda width: MemoryAsContext(_titans(width), WINDOW),
    "as a gate": lambda width: MemoryAsGate(Mixer(_titans(width)), RotaryAttention(width, 1, WINDOW)),
    "as a layer": lambda width: MemoryAsLayer(Mixer(_titans(width)), RotaryAttention(width, 1, WINDOW)),
}
LONGER = 4
STEPS, FULL_STEPS = 3000, 8000


def measure(
    seed: int,
    full: bool,
    advance: Advance,
    *,
    width: int = WIDTH,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    steps: int | None = None,
) -> dict[str, Any]:
    """Every kind in turn.

    Args:
        width: of the decoder, and of the one head of its memories.
        sizes: length and pairs of the tasks that are learned one after the other.
        steps: of training at most; None is 3,000, or 8,000 in full.
    """
    steps = steps or (FULL_STEPS if full else STEPS)
    length, pairs = sizes[-1]
    far = MultiQueryRecall(VOCABULARY, LONGER * length, pairs, power=1.0)
    networks = {
        name: partial(_decoder, build, width, far.length)
        for name, build in (KINDS | WIRINGS if full else KINDS).items()
    }
    spread = MultiQueryRecall(VOCABULARY, length, pairs, power=1.0)
    measured = taught(networks, seed, [*tasks_of(sizes), spread], steps, far, advance)
    last, whole = measured["last"], measured["untaught"][WHOLE]
    return measured | {
        "whole_recall": last[WHOLE],
        "whole_far": whole,
        "forgetting_helps": whole - measured["untaught"]["no forgetting"],
        "momentum_helps": whole - measured["untaught"]["no momentum"],
        "depth_helps": whole - measured["untaught"]["a matrix"],
    }


def _decoder(memory: Callable[[int], Memory], width: int, length: int) -> Transformer:
    return Transformer(VOCABULARY, [memory(width) for _ in range(LAYERS)], feed_forward_of(width), length)


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Recall at the length of training and at four times that, for every kind."""
    from mnemos.report.drawing import WITH, WITHOUT, drawing

    with drawing(1.4 + 0.4 * len(measured["last"])) as (figure, (axes,)):
        for number, name in enumerate(measured["last"]):
            axes.barh(number - 0.2, 100 * measured["last"][name], 0.36, color=WITHOUT)
            axes.barh(number + 0.2, 100 * measured["untaught"][name], 0.36, color=WITH)
        axes.set_yticks(range(len(measured["last"])), list(measured["last"]))
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("keys answered rightly, %: above at the length of training, below at four times that")
    return figure


STUDY = Study(
    name="titans",
    title="A memory that learns at test time recalls beyond its length of training (Behrouz et al. 2025)",
    measure=measure,
    thresholds={
        "whole_recall": Threshold(">=", 0.95),
        "whole_far": Threshold(">=", 0.9),
    },
    paper=[
        Figure("long context, the memory alone", "92.7 %", "Behrouz et al. 2025, table 5"),
        Figure("without weight decay", "85.6 %", "Behrouz et al. 2025, table 5"),
        Figure("without momentum", "87.1 %", "Behrouz et al. 2025, table 5"),
        Figure("linear memory", "85.3 %", "Behrouz et al. 2025, table 5"),
        Figure("as context", "98.0 %", "Behrouz et al. 2025, table 5"),
    ],
    draw=draw,
)
