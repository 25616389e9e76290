"""Kanerva's sparse distributed memory: from how far away is a stored word found?

Kanerva 1988: 1,000 bits, a radius of 451, so that about one location in a thousand is active. Words are
stored at themselves, and asked for with some bits flipped, each answer being the next question. From within a
critical distance that leads to the word, from further off away from it; and since each location holds only so
much, with ten times the words none is found. What counts is the number of words for a location: a hundredth,
as in Kanerva's own example of 10,000 words in 1,000,000 locations, which is the full form.
"""

import resource
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mnemos.memories.sparse_distributed import (
    SparseDistributed,
    SparseDistributedState,
    activation_share,
)
from mnemos.progress import Advance, between
from mnemos.studies.study import Figure, Study, Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

BITS, RADIUS = 1000, 451
LOCATIONS, FULL_LOCATIONS = 100_000, 1_000_000
DISTANCES = (0, 50, 100, 150, 175, 190, 200, 210, 220, 230, 240, 260, 280, 300)
READS = 20  # of each probe, at most
NEAR = 2  # bits: an answer so near to the word counts as the word
TOGETHER = 1000  # words stored in one call, which copies the counters once


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    start = time.process_time()
    locations, probes = (FULL_LOCATIONS, 100) if full else (LOCATIONS, 400)
    memory, words, state = _filled(locations, locations // 100, seed, between(advance, 0.0, 0.4))
    measured: dict[str, Any] = {"locations": locations, "words": words.shape[1], "probes": probes}
    generator = torch.Generator().manual_seed(seed + 1)
    measured |= _activation(memory, state, generator)
    found, ends = {}, {}
    for number, distance in enumerate(DISTANCES):
        advance(0.4 + 0.3 * number / len(DISTANCES), f"asking from {distance} bits away")
        found[str(distance)], ends[str(distance)] = _converged(
            memory, state, words, distance, probes, generator
        )
    measured |= {
        "converged_at_100": found["100"],
        "converged_at_150": found["150"],
        "converged_at_300": found["300"],
        "crossing": _crossing(found),
        "crossing_from_210": abs(_crossing(found) - 210),
        "distance_where_not_converged": ends["300"],
        "converged": found,
    }
    del state
    memory, words, state = _filled(LOCATIONS, LOCATIONS // 10, seed, between(advance, 0.7, 0.95))
    advance(0.95, "asking an overloaded memory")
    crowded = {
        str(distance): _converged(memory, state, words, distance, 200, generator)[0]
        for distance in (0, 50, 100, 150, 200)
    }
    return measured | {
        "converged_at_100_with_ten_times_the_words": crowded["100"],
        "converged_with_ten_times_the_words": crowded,
        "bytes_per_location": BITS + memory.addresses.shape[0] * 8,
        "peak_gigabytes": _peak_bytes() / 1e9,
        "processor_minutes": (time.process_time() - start) / 60,
    }


def _filled(
    locations: int, count: int, seed: int, advance: Advance
) -> tuple[SparseDistributed, Tensor, SparseDistributedState]:
    """A memory that holds `count` random words, and the words, as ±1."""
    memory = SparseDistributed(BITS, locations=locations, radius=RADIUS, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(2, (1, count, BITS), generator=generator).float() * 2 - 1
    state = memory.initial_state(1)
    for number, some in enumerate(words.split(TOGETHER, dim=1)):
        advance(number * TOGETHER / count, f"storing {count} words in {locations} locations")
        state = memory.write(state, some, some)
    return memory, words, state


def _activation(
    memory: SparseDistributed, state: SparseDistributedState, generator: torch.Generator
) -> dict[str, float]:
    """How many locations a random address activates, against the binomial tail."""
    addresses = torch.randn(1, 400, BITS, generator=generator)
    active = (memory.read(state, addresses).slots >= 0).sum(-1).double().mean().item()
    expected = memory.locations * activation_share(BITS, RADIUS)
    return {
        "active": active,
        "active_expected": expected,
        "activation_error": abs(active / expected - 1),
    }


def _converged(
    memory: SparseDistributed,
    state: SparseDistributedState,
    words: Tensor,
    distance: int,
    probes: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """The share of probes with `distance` bits flipped that find their word; how far off the others end."""
    chosen = words[:, torch.randperm(words.shape[1], generator=generator)[:probes]]
    flipped = torch.rand(chosen.shape, generator=generator).argsort(-1) < distance
    answers = memory.recall(state, torch.where(flipped, -chosen, chosen), times=READS).values
    wrong = (answers != chosen).sum(-1).double()
    lost = wrong > NEAR
    return 1 - lost.double().mean().item(), wrong[lost].mean().item() if lost.any() else 0.0


def _crossing(found: Mapping[str, float]) -> float:
    """The distance from which half of the probes find their word, between two measured ones."""
    points = [(float(distance), share) for distance, share in found.items()]
    if points[0][1] < 0.5:
        return points[0][0]
    for (near, above), (far, below) in pairwise(points):
        if below < 0.5:
            return near + (far - near) * (above - 0.5) / (above - below)
    return points[-1][0]


def _peak_bytes() -> int:
    """The most memory that the process has had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """The share of words that are found, by the distance from which they are asked for."""
    from mnemos.report.drawing import FAINT, WITH, WITHOUT, drawing

    lines = (
        ("converged", WITH, f"{measured['words']:,} words in {measured['locations']:,} locations"),
        ("converged_with_ten_times_the_words", WITHOUT, f"{LOCATIONS // 10:,} in {LOCATIONS:,}"),
    )
    with drawing(height=2.9) as (figure, [axes]):
        axes.axvline(209, color=FAINT, linewidth=1.2)
        axes.annotate("209: Kanerva's critical distance", (209, 97), (5, 0), textcoords="offset points")
        for name, colour, text in lines:
            distances = [int(distance) for distance in measured[name]]
            shares = [100 * share for share in measured[name].values()]
            axes.plot(distances, shares, color=colour, linewidth=1.6, marker="o", markersize=3.5)
            axes.annotate(text, (30, shares[0]), (0, 8), textcoords="offset points", color=colour)
        axes.set_ylim(-4, 112)
        axes.set_xlabel("bits of 1,000 in which the first question differs from the word")
        axes.set_ylabel("words found, %")
    return figure


STUDY = Study(
    name="sdm",
    title="A sparse distributed memory finds a word from up to a fifth of its bits away (Kanerva 1988)",
    measure=measure,
    thresholds={
        "activation_error": Threshold("<=", 0.05),
        "converged_at_100": Threshold(">=", 0.95),
        "converged_at_150": Threshold(">=", 0.85),
        "converged_at_300": Threshold("<=", 0.10),
        "crossing_from_210": Threshold("<=", 20),
        "converged_at_100_with_ten_times_the_words": Threshold("<=", 0.05),
        "peak_gigabytes": Threshold("<=", 4),
        "processor_minutes": Threshold("<=", 10),
    },
    paper=[
        Figure(
            "critical distance of 10,000 words in 1,000,000 locations, bits",
            209,
            "Kanerva 1988, Sparse Distributed Memory",
        ),
        Figure(
            "words at which it is zero: a share of the locations",
            0.1,
            "Kanerva 1988, Sparse Distributed Memory",
        ),
    ],
    draw=draw,
)
