"""What is lost with one of two memories depends on the age of what is remembered.

McClelland, McNaughton & O'Reilly 1995: a lesion of the hippocampus takes what is recent and spares what is
remote, whose traces have become the cortex' own; a lesion of the cortex does the opposite. In their model
of two compartments the strength of the fast store fades by itself, dS_h/dt = −D_h S_h, and replay at a rate
ρ(S_h) feeds the slow one, dS_c/dt = C ρ(S_h) − D_c S_c.

Here the compartments are systems. Every day ten arbitrary memories are written in one shot, with strength
1. Every night experiences are replayed in proportion to their strength; then the strength of each becomes
exp(−1 / 6) of itself, and it is the chance with which the store can give the memory back. On the evening of
the twentieth day one system is switched off.

How much is replayed in a night decides whether there is anything to see: with too little nothing is
transferred, with plenty a memory is remote after one night. So the rate is swept.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64
from torch import Tensor

from mnemos.consolidation import Phase, Sleep
from mnemos.consolidation.selection import by_strength
from mnemos.consolidation.sleep import from_store
from mnemos.progress import Advance
from mnemos.studies.arbitrary_memories import (
    CHANCE,
    COLUMNS,
    arbitrary,
    fade,
    fast_store,
    reinstated,
    right,
    slow_network,
    together,
)
from mnemos.studies.study import Figure, Study, Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DAYS, MEMORIES = 20, 10  # of each day
FADING = 6.0  # days in which a strength falls to 1 / e
QUARTER = DAYS // 4  # the oldest days are remote, the latest recent
STEPS = (0, 2, 5, 10, 15, 20, 40)  # of the optimiser in a night
CLAIMED = (15, 20)
ROWS = 10  # experiences in a step
RATE = 1e-3  # Adam's
LIVES, FULL_LIVES = 20, 100


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    lives = FULL_LIVES if full else LIVES
    by_age: dict[str, dict[str, list[float]]] = {}
    for number, steps in enumerate(STEPS):
        found = []
        for life in range(lives):
            advance((number + life / lives) / len(STEPS), f"{steps} steps a night, life {life + 1}")
            found.append(lived(1000 * seed + life, steps))
        by_age[str(steps)] = {
            column: torch.stack([one[column] for one in found]).mean(0).tolist() for column in COLUMNS
        }
    return {"lives": lives, "chance": CHANCE} | summary(by_age)


def lived(seed: int, steps: int) -> dict[str, Float64[Tensor, " ages"]]:
    """One life.

    Args:
        steps: in a night; 0 is no sleep.

    Returns:
        The share of each day's memories that is answered, by column, the last day first.
    """
    generator = torch.Generator().manual_seed(seed)
    memories = arbitrary(DAYS * MEMORIES, generator)
    network, episodes = slow_network(seed), fast_store(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    for day, today in enumerate(torch.arange(DAYS * MEMORIES).split(MEMORIES)):
        if day:
            if steps:
                night = Phase("night", steps, [from_store(episodes, by_strength())])
                Sleep(network, optimizer, [night], rows=ROWS, seed=DAYS * seed + day).run()
            fade(episodes, FADING)
        episodes.write(*memories.some(today), strength=torch.ones(MEMORIES))
    answered = right(together(network, reinstated(episodes, generator)), memories)
    return {column: one.view(DAYS, -1).flip(0).double().mean(1) for column, one in answered.items()}


def summary(by_age: Mapping[str, Mapping[str, list[float]]]) -> dict[str, Any]:
    """What the lesions take, at every number of steps, and at the worst of those that the claim is about."""

    def gap(steps: str, column: str) -> float:
        ages = by_age[steps][column]
        return (sum(ages[-QUARTER:]) - sum(ages[:QUARTER])) / QUARTER

    gaps = {column: {steps: gap(steps, column) for steps in by_age} for column in COLUMNS}
    intact = {steps: min(columns["both"]) for steps, columns in by_age.items()}
    claimed = [str(steps) for steps in CLAIMED]
    return {
        "remote_less_recent_store_lesioned": min(gaps["network_only"][steps] for steps in claimed),
        "remote_less_recent_network_lesioned": max(gaps["store_only"][steps] for steps in claimed),
        "intact_minimum": min(intact[steps] for steps in claimed),
        "remote_less_recent": gaps,
        "intact_minimum_by_steps": intact,
        "by_age": {steps: dict(columns) for steps, columns in by_age.items()},
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Answers by the age of the memory at one rate, and what the age makes of a lesion at every rate."""
    from mnemos.report.drawing import FAINT, TUNED, WITH, WITHOUT, drawing

    named = {
        "network_only": (WITH, "store lesioned"),
        "store_only": (TUNED, "network lesioned"),
        "both": (WITHOUT, "intact"),
    }
    with drawing(height=3.0, columns=2) as (figure, [ages, rates]):
        for column, (colour, text) in named.items():
            shares = [100 * share for share in measured["by_age"][str(CLAIMED[-1])][column]]
            ages.plot(shares, color=colour, linewidth=1.6, marker="o", markersize=3, label=text)
        ages.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.6))
        ages.set_title(f"{CLAIMED[-1]} steps of replay a night")
        ages.set_xlabel("age of the memory, days")
        ages.set_ylabel("answered, %")
        ages.set_ylim(-4, 104)
        rates.axvspan(CLAIMED[0], CLAIMED[-1], color=FAINT, alpha=0.6, linewidth=0)
        for asked in (40, -40):
            rates.axhline(asked, color=FAINT, linewidth=1.2)
        for column in ("network_only", "store_only"):
            gaps = measured["remote_less_recent"][column]
            points = [int(steps) for steps in gaps], [100 * gap for gap in gaps.values()]
            rates.plot(*points, color=named[column][0], linewidth=1.6, marker="o", markersize=3)
        lowest = measured["intact_minimum_by_steps"]
        points = [int(steps) for steps in lowest], [100 * share for share in lowest.values()]
        rates.plot(*points, color=WITHOUT, linewidth=1.6, marker="o", markersize=3)
        rates.annotate("intact, worst age", (23, 68), color=WITHOUT)
        rates.set_title("remote less recent, in points")
        rates.set_xlabel("steps of replay a night")
        rates.set_ylim(-84, 104)
    return figure


STUDY = Study(
    name="lesion",
    title="Which memories a lesion takes depends on their age (McClelland, McNaughton & O'Reilly 1995)",
    measure=measure,
    thresholds={
        "remote_less_recent_store_lesioned": Threshold(">=", 0.4),
        "remote_less_recent_network_lesioned": Threshold("<=", -0.4),
        "intact_minimum": Threshold(">=", 0.75),
    },
    paper=[
        Figure(
            "recent memories after a lesion of the hippocampus, beside remote ones",
            "lost, and spared; the opposite after a lesion of the cortex",
            "McClelland, McNaughton & O'Reilly 1995",
        )
    ],
    draw=draw,
)
