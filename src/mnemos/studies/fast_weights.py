"""Fast weights retrieve what an LSTM of the same width cannot hold: Ba et al. 2016, section 4.1.

The controls that reproductions ask for: the LSTM has the same embedding and the same readout of two layers,
and the network of 20 is tried without those layers, without layer normalisation, and without fast weights.
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
ROWS, STEPS, FULL_STEPS, CHECK, RATE = 128, 5000, 20_000, 200, 5e-3
ENOUGH = 0.998  # share of right answers at which training ends


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
    right: dict[str, dict[str, float]] = {}
    torch.manual_seed(seed)
    tried = retrievers()
    for number, (name, network) in enumerate(tried.items()):
        part = between(advance, number / len(tried), (number + 1) / len(tried))
        right[name] = _learn(network, seed, FULL_STEPS if full else STEPS, part)
    last = {name: list(shares.values())[-1] for name, shares in right.items()}
    return {
        "right": right,
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, network in tried.items()},
        "fast_weights_50": last["fast weights, 50 wide"],
        "fast_weights_20": last["fast weights, 20 wide"],
        "lstm_20": last["LSTM, 20 wide"],
        "lstm_50": last["LSTM, 50 wide"],
        "shallow_20": last["20 wide, one layer to read out"],
        "not_normalised_20": last["20 wide, not normalised"],
        "no_fast_weights_20": last["20 wide, no fast weights"],
    }


def _learn(network: Retriever, seed: int, steps: int, advance: Advance) -> dict[str, float]:
    """The share of right answers to unseen sequences by step, the last over 10,000 of them."""
    generator = torch.Generator().manual_seed(seed)
    right: dict[str, float] = {}

    def loss(step: int) -> Tensor:
        batch = TASK.tokens(ROWS, generator)
        return TASK.loss(network(batch.inputs), batch)

    def done(step: int) -> bool:
        if step % CHECK:
            return False
        right[str(step)] = _right(network, seed, 1000)
        return right[str(step)] > ENOUGH

    taken = fit(network, loss, steps, learning_rate=RATE, inertia=0.99, advance=advance, done=done)
    right[str(taken)] = _right(network, seed, 10_000)
    return right


@torch.no_grad()
def _right(network: Retriever, seed: int, rows: int) -> float:
    batch = TASK.tokens(rows, torch.Generator().manual_seed(1_000_000 + seed))
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
        for (name, shares), (colour, style) in zip(measured["right"].items(), looks, strict=True):
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
