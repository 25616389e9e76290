"""Memories that no longer need the store in which they began.

McClelland, McNaughton & O'Reilly 1995: what has been consolidated is answered after the fast store is gone,
and what has not is lost with it. A hundred arbitrary memories are written in one shot; after every cycle of
sleep it is asked what either system answers alone, and in two arms, after the last cycle and before the
first, the store really is deleted.

A store that is never emptied is no fast store. So in other arms every cycle ends with letting go of what
the network answers by itself, by its best answer or with confidence. What is gone is replayed no more, and
so stands without protection while the rest is learned, and while more days are lived through: that is
measured, too. In the last arm, from the second night on, the network also rehearses what it answered to
cues by lot when the night began (Robins 1995, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal"),
for which no record is needed.
"""

import copy
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mnemos.consolidation import Episodes, Phase, Sleep, let_go
from mnemos.consolidation.letting_go import Known, answered, confident
from mnemos.consolidation.sleep import Source, from_store
from mnemos.progress import Advance
from mnemos.studies.arbitrary_memories import (
    CHANCE,
    COLUMNS,
    Memories,
    arbitrary,
    fast_store,
    right,
    slow_network,
    together,
)
from mnemos.studies.study import Figure, Study, Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

MEMORIES = 100
CYCLES, STEPS, ROWS = 10, 25, 20  # of a night, of a cycle, of a step
LATER, MORE = 3, 20  # days, and memories of each
RATE = 1e-3  # Adam's
CONFIDENT = 0.9
NETWORKS, FULL_NETWORKS = 10, 50


class Arm(NamedTuple):
    known: Known | None  # what is let go; None is nothing
    dreams: bool = False  # whether the network rehearses its own answers

    @property
    def lets_go(self) -> bool:
        return self.known is not None


ARMS = {
    "all_kept": Arm(None),
    "answered": Arm(answered),
    "confident": Arm(confident(CONFIDENT)),
    "dreaming": Arm(confident(CONFIDENT), dreams=True),
}


class Life(NamedTuple):
    """One network and one store, and what they remember."""

    memories: Memories  # of the first day, and of those that follow
    ids: Int[Tensor, " memories"]  # in the store, of the first day's
    network: nn.Sequential
    episodes: Episodes
    optimizer: torch.optim.Adam

    def columns(self, rows: slice | Tensor) -> dict[str, float]:
        """The share of these memories that is answered."""
        answers = right(together(self.network, self.episodes), self.memories.some(rows))
        return {column: one.double().mean().item() for column, one in answers.items()}

    def night(self, arm: Arm, number: int, seed: int) -> Sleep:
        """The first, second, ... night; in the first there is nothing yet to dream of."""
        sources = [from_store(self.episodes)]
        if arm.dreams and number:
            sources.append(dreamed(self.network))
        lets_go = partial(let_go, self.network, self.episodes, arm.known, keep=ROWS) if arm.known else None
        return Sleep(
            self.network,
            self.optimizer,
            [Phase("night", STEPS, sources)],
            cycles=CYCLES,
            rows=ROWS * len(sources),
            let_go=lets_go,
            seed=(LATER + 1) * seed + number,
        )


def dreamed(network: nn.Module) -> Source:
    """Cues by lot, and how likely the network, as it is now, thinks each response to them."""
    held = copy.deepcopy(network)

    @torch.no_grad()
    def source(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        cues = arbitrary(rows, generator).cues
        return cues, held(cues).softmax(1)

    return source


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    networks = FULL_NETWORKS if full else NETWORKS
    found: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in ARMS}
    deletions = []
    for number in range(networks):
        advance(number / networks, f"network {number + 1} of {networks}")
        deletions.append([deleted(1000 * seed + number, slept) for slept in (False, True)])
        for name, arm in ARMS.items():
            found[name].append(lived(1000 * seed + number, arm))
    arms = {
        name: {
            curve: {time: sum(one[curve][time] for one in lives) / networks for time in lives[0][curve]}
            for curve in lives[0]
        }
        for name, lives in found.items()
    }
    last = str(CYCLES)
    (_, without_sleep), (intact, after_sleep) = torch.tensor(deletions).mean(0).tolist()
    return {
        "networks": networks,
        "chance": CHANCE,
        "deleted_of_intact": after_sleep / intact,
        "deleted_without_sleep": without_sleep,
        "let_go_still_answered": min(
            arms[name]["let_go_answered"][last] for name in ("confident", "dreaming")
        ),
        "let_go_still_answered_later": arms["dreaming"]["days_later"][str(LATER)],
        "arms": arms,
    }


def begun(seed: int) -> Life:
    """The first day's memories are written, and it is evening."""
    memories = arbitrary(MEMORIES + LATER * MORE, torch.Generator().manual_seed(seed))
    network, episodes = slow_network(seed), fast_store(seed)
    ids = episodes.write(*memories.some(slice(MEMORIES)))
    return Life(memories, ids, network, episodes, torch.optim.Adam(network.parameters(), lr=RATE))


def deleted(seed: int, slept: bool) -> tuple[float, float]:
    """What is answered of the first day before and after everything in the store is deleted.

    Args:
        slept: whether a night lies before that.
    """
    life = begun(seed)
    if slept:
        life.night(ARMS["all_kept"], 0, seed).run()
    intact = life.columns(slice(MEMORIES))["both"]
    life.episodes.delete()
    return intact, life.columns(slice(MEMORIES))["both"]


def lived(seed: int, arm: Arm) -> dict[str, dict[str, float]]:
    """A night, and more days with a night each.

    Returns:
        Curves: by the cycle of the first night each column of the first day's memories, the share of them
        that is in the store; at its end the share of those let go that both systems answer; and by the day
        after it the share of the first day's memories that both answer.
    """
    life = begun(seed)
    curves: dict[str, dict[str, float]] = {column: {} for column in COLUMNS}
    curves |= {name: {} for name in ("left", "let_go_answered", "days_later")}
    night = life.night(arm, 0, seed)
    for cycle in range(CYCLES + 1):
        slept = night.run(until=cycle * STEPS)
        for column, share in life.columns(slice(MEMORIES)).items():
            curves[column][str(cycle)] = share
        curves["left"][str(cycle)] = len(life.episodes) / MEMORIES
    gone = torch.isin(life.ids, slept.released).nonzero().squeeze(1)
    if arm.lets_go:
        curves["let_go_answered"][str(CYCLES)] = life.columns(gone)["both"]
    curves["days_later"]["0"] = curves["both"][str(CYCLES)]
    for day in range(LATER):
        first = MEMORIES + day * MORE
        life.episodes.write(*life.memories.some(slice(first, first + MORE)))
        life.night(arm, day + 1, seed).run()
        curves["days_later"][str(day + 1)] = life.columns(slice(MEMORIES))["both"]
    return curves


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """What a deletion would leave after every cycle; what is in the store; what later days leave."""
    from mnemos.report.drawing import FAINT, INK, TUNED, WITH, WITHOUT, curve, drawing

    named = {
        "all_kept": (WITHOUT, "all kept"),
        "answered": (TUNED, "answered goes"),
        "confident": (INK, "sure goes"),
        "dreaming": (WITH, "and dreams"),
    }
    with drawing(height=3.0, columns=3) as (figure, [cycles, store, days]):
        kept = measured["arms"]["all_kept"]
        for column, colour, text in (
            ("store_only", TUNED, "store alone"),
            ("network_only", WITH, "network alone"),
        ):
            curve(cycles, kept[column], "", colour)
            cycles.lines[-1].set_label(text)
        cycles.axhline(100 * measured["chance"], color=FAINT, linewidth=1.2)
        cycles.legend(frameon=False, loc="center right")
        cycles.set_title("all is kept")
        cycles.set_ylabel("first day's memories, %")
        for name, (colour, text) in named.items():
            curve(store, measured["arms"][name]["left"], "", colour)
            curve(days, measured["arms"][name]["days_later"], "", colour)
            days.lines[-1].set_label(text)
        store.set_title("in the store")
        days.set_title("answered by both")
        days.legend(frameon=False, loc="center left", bbox_to_anchor=(0, 0.56))
        for panel, text in ((cycles, "cycles of sleep"), (store, "cycles of sleep"), (days, "days later")):
            panel.set_xlabel(text)
            panel.set_ylim(-4, 104)
        for panel in (cycles, store):
            panel.set_xticks(range(0, CYCLES + 1, 2))
    return figure


STUDY = Study(
    name="independence",
    title="After enough sleep the store can be deleted (McClelland, McNaughton & O'Reilly 1995)",
    measure=measure,
    thresholds={
        "deleted_of_intact": Threshold(">=", 0.95),
        "deleted_without_sleep": Threshold("<=", CHANCE + 0.05),
        "let_go_still_answered": Threshold(">=", 0.95),
        "let_go_still_answered_later": Threshold(">=", 0.95),
    },
    paper=[
        Figure(
            "consolidated memories after a lesion of the hippocampus",
            "spared",
            "McClelland, McNaughton & O'Reilly 1995",
        )
    ],
    draw=draw,
)
