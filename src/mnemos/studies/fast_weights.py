"""Fast weights retrieve what an LSTM of the same width cannot hold: Ba et al. 2016, section 4.1.

The controls that reproductions ask for: the LSTM has the same embedding and the same readout of two layers,
and the network of 20 is tried without those layers, without layer normalisation, and without fast weights.

How far a network of 20 comes depends on how it began. So fast weights and the LSTM of 20 begin three times
each. Of either the one that is best on sequences of their own counts, and all are shown.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mnemos.memories import BaFastWeights, Recurrent
from mnemos.memories.base import Memory
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.retrieval import AssociativeRetrieval

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

TASK = AssociativeRetrieval()
EMBEDDED = 100  # width of the embedding and of the readout's hidden layer
ROWS, STEPS, FULL_STEPS, CHECK, RATE = 128, 14_000, 20_000, 200, 3e-3
STARTS = 3  # of those below
BEGUN_AGAIN = ("fast weights, 20 wide", "LSTM, 20 wide")
ENOUGH = 0.998  # share of right answers at which training ends
CHECKED, TRIED = 1_000_000, 2_000_000  # from here on count the seeds of what is not learned from


class Retriever(nn.Module):
    """A memory between an embedding and a readout, of two layers or, if shallow, of one and none."""

    def __init__(self, memory: Memory, shallow: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TASK.vocabulary, memory.input_size)
        self.memory = memory
        self.readout: nn.Module = nn.Linear(memory.output_size, TASK.vocabulary)
        if not shallow:
            hidden = nn.Linear(memory.output_size, EMBEDDED)
            self.readout = nn.Sequential(hidden, nn.ReLU(), nn.Linear(EMBEDDED, TASK.vocabulary))

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocabulary"]:
        return self.readout(self.memory(self.embedding(tokens))[0])


def retrievers() -> dict[str, Retriever]:
    """What is compared, by name."""
    unnormed = BaFastWeights(EMBEDDED, 20)
    unnormed.norm = nn.Identity()
    return {
        "fast weights, 50 wide": Retriever(BaFastWeights(EMBEDDED, 50)),
        "fast weights, 20 wide": Retriever(BaFastWeights(EMBEDDED, 20)),
        "LSTM, 50 wide": Retriever(Recurrent(EMBEDDED, 50)),
        "LSTM, 20 wide": Retriever(Recurrent(EMBEDDED, 20)),
        "20 wide, one layer to read out": Retriever(BaFastWeights(EMBEDDED, 20), shallow=True),
        "20 wide, not normalised": Retriever(unnormed),
        "20 wide, no fast weights": Retriever(BaFastWeights(EMBEDDED, 20, settling=0)),
    }


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    steps = FULL_STEPS if full else STEPS
    torch.manual_seed(seed)
    tried = {name: [network] for name, network in retrievers().items()}
    for _ in range(STARTS - 1):
        again = retrievers()
        for name in BEGUN_AGAIN:
            tried[name].append(again[name])
    total = sum(map(len, tried.values()))
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in tried}
    last: dict[str, float] = {}
    for name, networks in tried.items():
        for network in networks:
            done = sum(map(len, runs.values()))
            part = between(advance, done / total, (done + 1) / total)
            runs[name].append(_learn(network, seed, steps, part))
        ends = [list(shares.values())[-1] for shares in runs[name]]
        last[name] = _right(networks[ends.index(max(ends))], TRIED + seed, 10_000)
    return {
        "right": runs,
        "parameters": {
            name: sum(p.numel() for p in networks[0].parameters()) for name, networks in tried.items()
        },
        "fast_weights_50": last["fast weights, 50 wide"],
        "fast_weights_20": last[BEGUN_AGAIN[0]],
        "lstm_20": last[BEGUN_AGAIN[1]],
        "lstm_50": last["LSTM, 50 wide"],
        "shallow_20": last["20 wide, one layer to read out"],
        "not_normalised_20": last["20 wide, not normalised"],
        "no_fast_weights_20": last["20 wide, no fast weights"],
    }


def _learn(network: Retriever, seed: int, steps: int, advance: Advance) -> dict[str, float]:
    """The share of right answers to unseen sequences by step."""
    generator = torch.Generator().manual_seed(seed)
    right: dict[str, float] = {}

    def loss(step: int) -> Tensor:
        batch = TASK.tokens(ROWS, generator)
        return TASK.loss(network(batch.inputs), batch)

    def done(step: int) -> bool:
        if step % CHECK and step < steps:
            return False
        right[str(step)] = _right(network, CHECKED + seed, 1000)
        # Where nothing is normalised, numbers may grow for ever.
        lost = not all(parameter.isfinite().all() for parameter in network.parameters())
        return lost or right[str(step)] > ENOUGH

    fit(network, loss, steps, learning_rate=RATE, inertia=0.99, advance=advance, done=done)
    return right


@torch.no_grad()
def _right(network: Retriever, seed: int, rows: int) -> float:
    batch = TASK.tokens(rows, torch.Generator().manual_seed(seed))
    return 1 - TASK.error(network(batch.inputs), batch)


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """How retrieval comes, beside the LSTM and without each part."""
    from mnemos.report.drawing import INK, TUNED, WITH, WITHOUT, curve, drawing

    with drawing(3.4) as (figure, (axes,)):
        looks = [
            (WITH, "-"),
            (WITH, "--"),
            (INK, "-"),
            (INK, "--"),
            (TUNED, "-"),
            (TUNED, "--"),
            (WITHOUT, "-"),
        ]
        for (name, runs), (colour, style) in zip(measured["right"].items(), looks, strict=True):
            for shares in runs:
                curve(axes, shares, "", colour, linestyle=style)
            axes.lines[-1].set_label(name)
        axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
        axes.set_xlabel("steps of 128 sequences")
        axes.set_ylabel("retrieved rightly, %")
    return figure


STUDY = Study(
    name="fast-weights",
    title="Fast weights retrieve what an LSTM of their width cannot hold (Ba et al. 2016)",
    measure=measure,
    thresholds={
        "fast_weights_50": Threshold(">=", 0.98),
        "fast_weights_20": Threshold(">=", 0.90),
        "lstm_20": Threshold("<=", 0.60),
    },
    paper=[
        Figure("error of fast weights, widths 20, 50 and 100, %", "1.81, 0, 0", "Ba et al. 2016, table 1"),
        Figure("error of the LSTM, the same widths, %", "60.81, 1.85, 0", "Ba et al. 2016, table 1"),
        Figure("error of the plain recurrent network, %", "62.11, 60.23, 0.34", "Ba et al. 2016, table 1"),
    ],
    draw=draw,
)
