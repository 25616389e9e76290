"""Six presentations are remembered longer if they are apart: where writing is gated by surprise.

An experience that is written with the same strength each time it is met has no spacing effect, or a small
one. A strength that fades as exp(−t / τ) amounts, over all nights to come, to τ nights' worth of replay,
whenever it was written; six of them are six of these, near or apart, and those that came last are better
remembered. But those that come at once share the replays of the same nights.

Gated by surprise a trace is written with the strength of what neither system predicts, (1 − p_store) (1 −
p_network) for the response that comes. Six presentations in a row are then hardly more than one, and each
that comes g days after the last makes up for the 1 − exp(−g / τ) that has faded: what is replayed is 1 + 5
(1 − exp(−g / τ)) times that of one presentation, as long as the network itself does not know.

Every life has items of each kind, met in the same store and by the same network among twenty new
experiences a day; all have their last presentation on the same day. The control is the same life with
ungated writing, and the steps of replay in a night are swept.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from mnemos.consolidation import Episodes, Phase, Sleep
from mnemos.consolidation.selection import by_strength
from mnemos.consolidation.sleep import from_store
from mnemos.progress import Advance
from mnemos.studies.arbitrary_memories import (
    COLUMNS,
    RESPONSES,
    Memories,
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

GAPS = (0, 1, 2)  # days between presentations; 0 is all on one day
PRESENTATIONS, ITEMS = 6, 5  # of an item; of each gap
OTHERS = 20  # new experiences of a day
LAST = 20  # the day of the last presentation; the first days are for the store to fill
DELAYS = (0, 1, 3, 6, 10)  # days until a test, on the evening of the day
FADING = 3.0  # τ, days
STEPS = (2, 4, 8)  # of the optimiser in a night
CLAIMED = (4, 8)
ROWS = 10  # experiences in a step
RATE = 1e-3  # Adam's
LIVES, FULL_LIVES = 20, 100
GATING = {"gated": True, "ungated": False}

Answered = dict[str, dict[str, Float64[Tensor, " gaps"]]]  # by delay and column


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    lives = FULL_LIVES if full else LIVES
    arms: dict[str, Any] = {}
    for place, (name, steps) in enumerate((name, steps) for name in GATING for steps in STEPS):
        found = []
        for life in range(lives):
            advance(
                (place + life / lives) / len(GATING) / len(STEPS), f"{name}, {steps} steps, life {life + 1}"
            )
            found.append(lived(1000 * seed + life, GATING[name], steps))
        arms.setdefault(name, {})[str(steps)] = compared(found)
    last = str(DELAYS[-1])

    def spaced_less_massed(name: str, delay: str) -> dict[str, float]:
        return {steps: one["spaced_less_massed"][delay] for steps, one in arms[name].items()}

    claimed = [arms["gated"][str(steps)] for steps in CLAIMED]
    return {
        "lives": lives,
        "spaced_less_massed": min(one["spaced_less_massed"][last] for one in claimed),
        "p": max(one["p"][last] for one in claimed),
        **{f"{name}_at_the_end": spaced_less_massed(name, last) for name in GATING},
        **{f"{name}_at_once": spaced_less_massed(name, "0") for name in GATING},
        "arms": arms,
    }


def lived(seed: int, gated: bool, steps: int) -> Answered:
    """One life.

    Returns:
        The share of the items of each gap that is answered.
    """
    generator = torch.Generator().manual_seed(seed)
    items = arbitrary(len(GAPS) * ITEMS, generator)
    others = arbitrary((LAST + DELAYS[-1] + 1) * OTHERS, generator)
    network, episodes = slow_network(seed), fast_store(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    answered: Answered = {}
    for day, new in enumerate(torch.arange(len(others.cues)).split(OTHERS)):
        if day:
            night = Phase("night", steps, [from_store(episodes, by_strength())])
            Sleep(network, optimizer, [night], rows=ROWS, seed=100 * seed + day).run()
            fade(episodes, FADING)
        for met in [others.some(new), *(items.some(rows) for rows in presented(day))]:
            strength = torch.ones(len(met.cues))
            if gated:
                strength = surprise(met, network, reinstated(episodes, generator))
            episodes.write(*met, strength=strength)
        if day - LAST in DELAYS:
            found = right(together(network, reinstated(episodes, generator)), items)
            answered[str(day - LAST)] = {
                column: one.view(len(GAPS), ITEMS).double().mean(1) for column, one in found.items()
            }
    return answered


def presented(day: int) -> list[Tensor]:
    """The items that are met on a day: several lots, one after the other, where some are met again."""
    left = LAST - day
    lots = torch.arange(len(GAPS) * ITEMS).split(ITEMS)
    apart = [
        lot for lot, gap in zip(lots, GAPS, strict=True) if gap and left in range(0, PRESENTATIONS * gap, gap)
    ]
    return ([torch.cat(apart)] if apart else []) + ([lots[0]] * PRESENTATIONS if not left else [])


@torch.no_grad()
def surprise(met: Memories, network: nn.Module, episodes: Episodes) -> Float[Tensor, " rows"]:
    """The chance of each response that neither the store nor the network saw coming."""
    systems, unforeseen = together(network, episodes), torch.ones(len(met.cues))
    for alone in ("store_only", "network_only"):
        with systems.lesion(*COLUMNS[alone]):
            chances = systems.answer(met.cues, RESPONSES)
        unforeseen = unforeseen * (1 - chances.gather(1, met.responses[:, None])[:, 0])
    return unforeseen.clamp(min=0)


def compared(lives: list[Answered]) -> dict[str, Any]:
    """The means over lives, and the widest gap against none in what both systems answer, life by life."""
    differences = {
        delay: torch.stack([life[delay]["both"][-1] - life[delay]["both"][0] for life in lives])
        for delay in lives[0]
    }
    answered = {
        delay: {
            column: torch.stack([life[delay][column] for life in lives]).mean(0).tolist()
            for column in COLUMNS
        }
        for delay in lives[0]
    }
    return {
        "answered": answered,  # of each gap
        "spaced_less_massed": {delay: one.mean().item() for delay, one in differences.items()},
        "p": {delay: by_chance(one) for delay, one in differences.items()},
    }


def by_chance(differences: Float64[Tensor, " lives"], draws: int = 20_000) -> float:
    """How often signs by lot give a mean as far from 0: a two-sided randomisation test of paired samples."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (draws, len(differences)), generator=generator).double() * 2 - 1
    beyond = ((signs @ differences).abs() >= differences.sum().abs() - 1e-9).sum().item()
    return (beyond + 1) / (draws + 1)


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Items answered by both systems, by the days since their last presentation."""
    from mnemos.report.drawing import TUNED, WITH, WITHOUT, curve, drawing

    named = [(WITHOUT, "on one day"), (TUNED, "a day apart"), (WITH, "two days apart")]
    steps = str(CLAIMED[0])
    with drawing(height=3.0, columns=2) as (figure, axes):
        titles = {"gated": "written by surprise", "ungated": "written alike"}
        for panel, (name, title) in zip(axes, titles.items(), strict=True):
            answered = measured["arms"][name][steps]["answered"]
            for place, (colour, text) in enumerate(named):
                curve(panel, {delay: one["both"][place] for delay, one in answered.items()}, "", colour)
                panel.lines[-1].set_label(text)
            panel.set_title(title)
            panel.set_xlabel("days since the last presentation")
            panel.set_ylim(-4, 104)
        axes[0].set_ylabel("answered, %")
        axes[0].legend(frameon=False, loc="lower left")
    return figure


STUDY = Study(
    name="spacing",
    title="Spaced presentations are remembered longer, if what surprises is written strongly",
    measure=measure,
    thresholds={
        "spaced_less_massed": Threshold(">=", 0.1),
        "p": Threshold("<", 0.05),
    },
    paper=[
        Figure(
            "recall after a long delay, presentations apart less presentations in a row",
            "above 0",
            "Ebbinghaus 1885; Cepeda et al. 2006, a review of 317 experiments",
        )
    ],
    draw=draw,
)
