"""Titans' memory as the only mixer of a small decoder: recall, recall at four times the length, ablations.

Behrouz et al. 2025, "Titans", table 5: without forgetting, without momentum, or with a matrix in place of the
network the memory is worse, in this order. Scaled down: pairs are told at the beginning and asked for later
(Arora et al. 2024), at lengths of up to 64 tokens in training and of 256 afterwards, the questions spread
over all of them. What the equations say is in the tests of the memory.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mnemos.memories import Titans
from mnemos.models.mixer import Mixer
from mnemos.models.transformer import Transformer, feed_forward_of
from mnemos.progress import Advance, between
from mnemos.studies.mqar import SIZES, VOCABULARY, answered, learn
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.multi_query_recall import MultiQueryRecall

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WHOLE = "whole"
KINDS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "no forgetting": {"forgetting": False},
    "no momentum": {"momentum": False},
    "a matrix": {"depth": 1},
}
WIDTH, LAYERS = 64, 2
LONGER = 4
STEPS, FULL_STEPS = 2000, 8000


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
        steps: of training at most; None is 2,000, or 8,000 in full.
    """
    steps = steps or (FULL_STEPS if full else STEPS)
    length, pairs = sizes[-1]
    far = MultiQueryRecall(VOCABULARY, LONGER * length, pairs, power=1.0)
    measured: dict[str, Any] = {"recall": {}, "far": {}, "steps": {}}
    for number, (name, options) in enumerate(KINDS.items()):
        torch.manual_seed(seed)
        memories = [Mixer(Titans(width, key_size=width, value_size=width, **options)) for _ in range(LAYERS)]
        network = Transformer(VOCABULARY, memories, feed_forward_of(width), LONGER * length)
        part = between(advance, number / len(KINDS), (number + 1) / len(KINDS))
        measured["steps"][name], right = learn(network, seed, sizes, steps, part)
        measured["recall"][name] = list(right.values())[-1]
        measured["far"][name] = answered(network, far, seed, rows=256)
    whole = measured["far"][WHOLE]
    return measured | {
        "whole_recall": measured["recall"][WHOLE],
        "whole_far": whole,
        "forgetting_helps": whole - measured["far"]["no forgetting"],
        "momentum_helps": whole - measured["far"]["no momentum"],
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Recall at the length of training and at four times that, for every kind."""
    from mnemos.report.drawing import WITH, WITHOUT, drawing

    with drawing(3.0) as (figure, (axes,)):
        for number, name in enumerate(measured["recall"]):
            axes.barh(number - 0.2, 100 * measured["recall"][name], 0.36, color=WITHOUT)
            axes.barh(number + 0.2, 100 * measured["far"][name], 0.36, color=WITH)
        axes.set_yticks(range(len(measured["recall"])), list(measured["recall"]))
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
        "forgetting_helps": Threshold(">=", 0.05),
        "momentum_helps": Threshold(">=", 0.02),
    },
    paper=[
        Figure("long context, the memory alone", "92.7 %", "Behrouz et al. 2025, table 5"),
        Figure("without weight decay", "85.6 %", "Behrouz et al. 2025, table 5"),
        Figure("without momentum", "87.1 %", "Behrouz et al. 2025, table 5"),
        Figure("linear memory", "85.3 %", "Behrouz et al. 2025, table 5"),
    ],
    draw=draw,
)
