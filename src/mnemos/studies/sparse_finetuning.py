"""Sparse memory finetuning: 500 new facts after 5,000 old ones, and what is left of the old.

Lin et al. 2025 teach a language model new facts by changing a few slots of its memory layers. Scaled down: a
network with one memory layer knows 5,000 random facts by heart and is then shown 500 others, and no old fact
ever again. Beside it the same network with all parameters finetuned, at the rate that forgets least of those
at which it learns; and with every row that is read but no other parameter, which at this size forgets little
where its rate is low.
"""

import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemos.consolidation.sparse_finetuning import (
    Background,
    SparseFinetuning,
    background,
    load_edit,
    save_edit,
)
from mnemos.memories.product_key import ProductKey, SiluGate
from mnemos.progress import Advance, between
from mnemos.sparse_optimizer import SparseOptimizer
from mnemos.stores.row_optimizer import adam
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.facts import Facts, random_facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

OLD, NEW, SIZE, ANSWERS = 5000, 500, 32, 16
WIDTH, HALF_KEYS = 64, 128
TABLE_RATE, RATE = 0.03, 1e-3  # of the first training, of the table and of the rest
SLOTS, SPARSE_RATE = 400, 0.1  # that a step may change, of 16,384
TABLE_RATES, FULL_RATES = (0.03, SPARSE_RATE), (1e-4, 3e-4, 1e-3)
BATCH, MOST_EPOCHS, ENOUGH = 50, 30, 0.95  # of finetuning


class _Network(nn.Module):
    """A memory layer between two small networks, as in a block of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(SIZE, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.memory = ProductKey(
            WIDTH, HALF_KEYS, WIDTH, heads=2, top_k=16, key_size=32, gate=SiluGate(WIDTH, WIDTH, WIDTH)
        )
        self.answer = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, ANSWERS))
        self.rows = self.memory.values.get_parameter("rows")

    def forward(self, keys: Tensor) -> Tensor:
        hidden = self.embed(keys).unsqueeze(0)
        return self.answer(hidden + self.memory(hidden)[0]).squeeze(0)

    @torch.no_grad()
    def slots(self, keys: Tensor) -> Tensor:
        return self.memory.read(self.embed(keys).unsqueeze(0)).slots

    def rest(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter is not self.rows]

    @torch.no_grad()
    def knows(self, facts: Facts) -> float:
        return (self(facts.keys).argmax(1) == facts.answers).double().mean().item()


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    times = 4 if full else 1  # as many facts of both kinds
    old, new = (random_facts(times * count, SIZE, ANSWERS, generator) for count in (OLD, NEW))
    network = _Network()
    _learn(network, old, generator, between(advance, 0.0, 0.5))
    known = background((network.slots(keys) for keys in old.keys.split(BATCH)), HALF_KEYS**2)
    advance(0.5, f"{len(new.keys)} new facts, a few slots")
    sparse, reverted = _sparsely(copy.deepcopy(network), known, old, new, generator)
    curves = {"sparse": sparse}
    ways = [("table", rate, 0.0) for rate in TABLE_RATES]
    ways += [("full", rate * TABLE_RATE / RATE, rate) for rate in FULL_RATES]
    for number, (what, table_rate, rate) in enumerate(ways):
        name = f"{what}, {rate or table_rate:g}"
        advance(0.6 + 0.08 * number, f"{len(new.keys)} new facts, {name}")
        curves[name] = _densely(copy.deepcopy(network), table_rate, rate, old, new, generator)
    before = network.knows(old)
    drops = {name: 100 * (before - curve["old"][-1]) for name, curve in curves.items()}
    learned = {name: drop for name, drop in drops.items() if curves[name]["new"][-1] >= 0.9}
    full_drop = min((drop for name, drop in learned.items() if name.startswith("full")), default=math.nan)
    return {
        "old_accuracy_before": before,
        "new_accuracy": sparse["new"][-1],
        "old_drop": drops["sparse"],
        "full_drop": full_drop,
        "drop_ratio": full_drop / max(drops["sparse"], 100 / len(old.keys)),  # at least one fact
        "drops": drops,
        "rows_changed": reverted["changed"],
        "rows_that_differ_after_revert": reverted["differ"],
        "curves": curves,
    }


def _learn(network: _Network, facts: Facts, generator: torch.Generator, advance: Advance) -> None:
    """The first training: all facts by heart."""
    optimizers: list[torch.optim.Optimizer] = [
        SparseOptimizer([network.rows], adam, lr=TABLE_RATE),
        torch.optim.Adam(network.rest(), lr=RATE),
    ]
    epochs = 30
    for epoch in range(epochs):
        advance(epoch / epochs, f"{len(facts.keys)} old facts, epoch {epoch} of {epochs}")
        for optimizer, rate in zip(optimizers, (TABLE_RATE, RATE), strict=True):
            optimizer.param_groups[0]["lr"] = rate * (1 - epoch / epochs)
        for batch in torch.randperm(len(facts.keys), generator=generator).split(250):
            _backward(network, facts, batch)
            for optimizer in optimizers:
                optimizer.step()


def _sparsely(
    network: _Network, known: Background, old: Facts, new: Facts, generator: torch.Generator
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """The new facts into few slots; then the edit through a file, and back."""
    first = network.rows.detach().clone()
    tuning = SparseFinetuning(network.rows, known, SLOTS)
    optimizer = SparseOptimizer([network.rows], adam, lr=SPARSE_RATE)

    def step(batch: Tensor) -> None:
        _backward(network, new, batch)
        tuning.restrict(network.slots(new.keys[batch]))
        optimizer.step()

    curve = _finetune(network, step, old, new, generator)
    with tempfile.TemporaryDirectory() as folder:
        save_edit(Path(folder) / "facts.edit", tuning.edit())
        edit = load_edit(Path(folder) / "facts.edit")
    edit.revert(network.rows)
    differ = (network.rows.detach().view(torch.int32) != first.view(torch.int32)).any(1)
    return curve, {"changed": len(edit.rows), "differ": int(differ.sum())}


def _densely(
    network: _Network, table_rate: float, rate: float, old: Facts, new: Facts, generator: torch.Generator
) -> dict[str, list[float]]:
    """The new facts into all rows that they read, and at a rate above 0 into all other parameters."""
    optimizers: list[torch.optim.Optimizer] = [SparseOptimizer([network.rows], adam, lr=table_rate)]
    if rate:
        optimizers.append(torch.optim.Adam(network.rest(), lr=rate))

    def step(batch: Tensor) -> None:
        _backward(network, new, batch)
        for optimizer in optimizers:
            optimizer.step()

    return _finetune(network, step, old, new, generator)


def _finetune(
    network: _Network, step: Any, old: Facts, new: Facts, generator: torch.Generator
) -> dict[str, list[float]]:
    """Until enough of the new facts are known; what is known of both after each epoch."""
    curve = {"old": [network.knows(old)], "new": [network.knows(new)]}
    while curve["new"][-1] < ENOUGH and len(curve["new"]) <= MOST_EPOCHS:
        for batch in torch.randperm(len(new.keys), generator=generator).split(BATCH):
            step(batch)
        curve["old"].append(network.knows(old))
        curve["new"].append(network.knows(new))
    return curve


def _backward(network: _Network, facts: Facts, batch: Tensor) -> None:
    network.zero_grad()
    functional.cross_entropy(network(facts.keys[batch]), facts.answers[batch]).backward()


def draw(measured: Mapping[str, Any]) -> "Drawing":
    from mnemos.report.drawing import INK, TUNED, WITH, drawing, label

    curves: Mapping[str, Mapping[str, Sequence[float]]] = measured["curves"]
    names = list(curves)
    colours = dict(zip(names, (WITH, INK, "#6b717b", "#e3a878", TUNED, "#8f4a12"), strict=True))
    with drawing(height=3.0, columns=2) as (figure, [time, plane]):
        for name, colour in colours.items():
            old, new = curves[name]["old"], curves[name]["new"]
            for axes, places in ((time, range(len(old))), (plane, new)):
                axes.plot(places, old, color=colour, linewidth=1.6, marker="o", markersize=2.5)
        ends = [curves[name]["old"][-1] for name in names]
        for name, height in zip(names, _apart(ends, 0.075), strict=True):
            what, _, rate = name.partition(", ")
            text = {"sparse": f"{SLOTS} slots a step", "table": f"all slots, rate {rate}"}.get(
                what, f"all parameters, {rate}"
            )
            label(plane, 1.0, height, text, colours[name])
        time.set_title("old facts still known")
        time.set_xlabel("epoch of new facts")
        plane.set_title("old against new facts")
        plane.set_xlabel("new facts known")
        for axes in (time, plane):
            axes.set_ylim(0, 1.04)
        plane.set_xlim(0, 1.0)
    return figure


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """The heights, moved down where one is nearer than `least` to the one above it."""
    moved: dict[int, float] = {}
    last = math.inf
    for place in sorted(range(len(heights)), key=lambda place: -heights[place]):
        last = moved[place] = min(heights[place], last - least)
    return [moved[place] for place in range(len(heights))]


STUDY = Study(
    name="sparse-memory-finetuning",
    title="New facts in few slots of a memory, and the old ones kept (Lin et al. 2025)",
    measure=measure,
    thresholds={
        "new_accuracy": Threshold(">=", 0.9),
        "old_drop": Threshold("<=", 10.0),
        "drop_ratio": Threshold(">=", 3.0),
        "rows_that_differ_after_revert": Threshold("==", 0),
    },
    paper=[
        Figure(
            "drop of NaturalQuestions F1 after new facts, all parameters finetuned, %", 89, "Lin et al. 2025"
        ),
        Figure("the same with LoRA, %", 71, "Lin et al. 2025"),
        Figure("the same with sparse memory finetuning, %", 11, "Lin et al. 2025"),
    ],
    draw=draw,
)
