"""What the studies of two memories share: experiences that have nothing in common, a network that knows none
of them, a store in which they fade, and the columns of every table.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import mnemos
from mnemos.consolidation import ComplementarySystems, Episodes
from mnemos.consolidation.complementary import System

CUE, HIDDEN, RESPONSES = 64, 128, 20
CHANCE = 1 / RESPONSES
FORGOTTEN = 0.02  # the strength of a trace that is gone
COLUMNS: Mapping[str, tuple[System, ...]] = {  # what is lesioned
    "store_only": ("network",),
    "network_only": ("store",),
    "both": (),
}


class Memories(NamedTuple):
    """Cues of random ±1 and one of the responses to each, by lot: knowing some says nothing of others."""

    cues: Float[Tensor, "memories cue"]
    responses: Int[Tensor, " memories"]

    def some(self, rows: slice | Tensor) -> "Memories":
        return Memories(self.cues[rows], self.responses[rows])


def arbitrary(count: int, generator: torch.Generator) -> Memories:
    cues = torch.randint(2, (count, CUE), generator=generator).float() * 2 - 1
    return Memories(cues, torch.randint(RESPONSES, (count,), generator=generator))


def slow_network(seed: int) -> nn.Sequential:
    """A network of cues to responses that has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(CUE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, RESPONSES))


def fast_store(seed: int) -> Episodes:
    """An empty one."""
    return Episodes(mnemos.open(":memory:", metric="euclidean"), seed=seed)


def fade(episodes: Episodes, days: float) -> None:
    """One more day: every strength becomes exp(−1 / days) of what it was; what is next to nothing goes."""
    traces = episodes.traces()
    strength = traces.strength * math.exp(-1 / days)
    episodes.store.update(traces.ids, strength=strength.float())
    episodes.store.delete(traces.ids[strength < FORGOTTEN])


def reinstated(episodes: Episodes, generator: torch.Generator) -> Episodes:
    """What the store can give back now: every experience with a chance of its strength, by lot.

    A weak trace may not be found today and yet be found, or replayed, tomorrow; so nothing is deleted.
    """
    traces, now = episodes.traces(), fast_store(seed=0)
    ids = traces.ids[torch.rand(len(traces.ids), generator=generator) < traces.strength]
    if len(ids):
        found = episodes.get(ids)
        now.write(found.inputs, found.targets)
    return now


def together(network: nn.Module, episodes: Episodes) -> ComplementarySystems:
    """Both systems: where the cue itself is in the store each has half a say, elsewhere the network alone."""
    return ComplementarySystems(network, episodes, reach=0.0)


def right(systems: ComplementarySystems, asked: Memories) -> dict[str, Bool[Tensor, " memories"]]:
    """Whether each memory is answered, by column."""
    answers = {}
    for column, lesioned in COLUMNS.items():
        with systems.lesion(*lesioned):
            answers[column] = systems.answer(asked.cues, RESPONSES).argmax(1) == asked.responses
    return answers
