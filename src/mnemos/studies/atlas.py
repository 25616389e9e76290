"""Atlas: how many pairs its features hold, what its window gains, and which directions Muon learns.

Behrouz et al. 2025, "ATLAS: Learning to Optimally Memorize the Context at Test Time". A matrix holds as many
pairs as its keys have dimensions, O(d), and with features of degree p as many as these have, O(d^p); learning
the last c steps at each serves the context better than learning the last one; and a step of Muon learns all
directions alike. Here each claim is asked of the equations alone, by telling and asking a memory: no network
is trained around it. `atlas_window` and `atlas_muon` have the second and the third.

Keys have length one, and on the sphere polynomials of degree p in d numbers have C(d+p-1, p) + C(d+p-2, p-1)
dimensions, less than the features C(d+p, p). Of N random pairs the least squares answers the share
min(1, dimensions / N), so 90 % are answered up to dimensions / 0.9 pairs. That takes hundreds of steps on all
of them together, a window over all with momentum, since the higher degrees have the least of φ. What is
recalled after one pass of single steps, which is far less, is reported and has no threshold.
"""

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mnemos.memories.atlas import Atlas
from mnemos.progress import Advance, between
from mnemos.studies.atlas_muon import muon
from mnemos.studies.atlas_window import WINDOWS, pruning, windows
from mnemos.studies.study import Figure, Study, Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SIZE, WIDTH, DEGREES = 8, 16, (1, 2, 3)  # numbers of a key and of a value
LOADS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)  # pairs for each dimension
ONCE = (4, 8, 16, 32, 64)  # pairs that are told once
MOMENTUM = 0.985  # with which pairs are learned together
ENOUGH = 0.9  # the share of the values that is asked for


def dimensions(size: int, degree: int) -> int:
    """Of the polynomials on the sphere, at most as many pairs as which a matrix of features holds."""
    return math.comb(size + degree - 1, degree) + math.comb(size + degree - 2, degree - 1)


def measure(
    seed: int,
    full: bool,
    advance: Advance,
    *,
    size: int = SIZE,
    steps: int | None = None,
    repetitions: int | None = None,
    pairs: int = 64,
) -> dict[str, Any]:
    """Capacity first, then the window and Muon.

    Args:
        size: of the keys whose capacity is asked for.
        steps: in which pairs are learned; None is 600, or 2,400 in full.
        repetitions: of everything; None is 4 memories for capacity and 4 times as many for the others, or 4
            times that in full.
        pairs: of a stream for the window.
    """
    repetitions = repetitions or (16 if full else 4)
    measured = _capacity(
        size, steps or (2400 if full else 600), repetitions, seed, between(advance, 0.0, 0.5)
    )
    measured |= windows(seed, pairs, 4 * repetitions, between(advance, 0.5, 0.7))
    measured |= pruning(seed, pairs, 4 * repetitions)
    return measured | muon(seed, 2 * repetitions, between(advance, 0.7, 1.0))


@torch.no_grad()
def _capacity(size: int, steps: int, repetitions: int, seed: int, advance: Advance) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    answered: dict[str, dict[str, float]] = {}
    once: dict[str, dict[str, float]] = {}
    capacity, ranks = {}, {}
    for number, degree in enumerate(DEGREES):
        name, held = str(degree), dimensions(size, degree)
        counts = [round(load * held) for load in LOADS]
        part = between(advance, number / len(DEGREES), (number + 1) / len(DEGREES))
        answered[name] = settled(size, degree, counts, steps, repetitions, generator, part)
        capacity[name] = crossing(answered[name])
        ranks[name] = _rank(size, degree, generator)
        once[name] = {str(n): told_once(size, degree, n, 4 * repetitions, generator) for n in ONCE}
    theory = {str(degree): dimensions(size, degree) / ENOUGH for degree in DEGREES}
    return {
        "size": size,
        "answered": answered,
        "recalled_once": once,
        "dimensions": {str(degree): dimensions(size, degree) for degree in DEGREES},
        "rank": ranks,
        "capacity": capacity,
        "capacity_in_theory": theory,
        "dimensions_error": max(abs(ranks[str(p)] - dimensions(size, p)) for p in DEGREES),
        "capacity_error": max(abs(capacity[name] / theory[name] - 1) for name in theory),
        "second_degree_holds": capacity["2"] / capacity["1"],
        "third_degree_holds": capacity["3"] / capacity["1"],
    }


def _matrix(size: int, degree: int, window: int) -> Atlas:
    return Atlas(
        size,
        key_size=size,
        value_size=WIDTH,
        depth=1,
        chunk_size=1,
        window=window,
        degree=degree,
        newton_schulz_steps=0,
    )


def _length(degree: int) -> float:
    """|φ(k)|² of a key of length one, with the coefficients a memory begins with."""
    return sum(1 / math.factorial(i) for i in range(degree + 1))


def settled(
    size: int,
    degree: int,
    counts: list[int],
    steps: int,
    repetitions: int,
    generator: torch.Generator,
    advance: Advance,
) -> dict[str, float]:
    """The share of the values that is answered, by the number of pairs, when all were learned together.

    Every number of pairs has rows of its own, whose window sees that many. The rate is stable whatever the
    keys, for no eigenvalue of the features' products is beyond their trace, N |φ|².
    """
    most = max(counts)
    count = torch.tensor(counts).repeat_interleave(repetitions)
    keys = torch.randn(len(count), most, size, generator=generator)
    values = torch.randn(len(count), most, WIDTH, generator=generator)
    told = torch.arange(most) < count.unsqueeze(1)
    rate = (1 / (count * _length(degree))).unsqueeze(1)
    momentum = torch.full_like(rate, MOMENTUM)
    memory = _matrix(size, degree, most)
    state = memory.initial_state(len(count))
    rows = torch.arange(len(count))
    for step in range(steps):
        if step % 20 == 0:
            advance(step / steps, f"features of degree {degree}: {step} steps")
        at = step % count
        state = memory.write(
            state,
            keys[rows, at].unsqueeze(1),
            values[rows, at].unsqueeze(1),
            rate=rate,
            momentum=momentum,
            relevance=told[:, None, None].float(),
        )
    missing = (memory.read(state, keys).values - values).square().sum(2) * told
    share = 1 - missing.sum(1) / (values.square().sum(2) * told).sum(1)
    return {str(n): x for n, x in zip(counts, share.view(-1, repetitions).mean(1).tolist(), strict=True)}


def told_once(size: int, degree: int, pairs: int, rows: int, generator: torch.Generator) -> float:
    """The share of keys whose own value is the nearest to the answer, after one pass of window 1.

    The rate is the one that learns a new pair wholly, 1 / (2 |φ|²).
    """
    keys = torch.randn(rows, pairs, size, generator=generator)
    values = torch.randn(rows, pairs, WIDTH, generator=generator)
    memory = _matrix(size, degree, 1)
    rate = keys.new_full((rows, pairs), 0.5 / _length(degree))
    state = memory.write(memory.initial_state(rows), keys, values, rate=rate)
    nearest = torch.cdist(memory.read(state, keys).values, values).argmin(2)
    return (nearest == torch.arange(pairs)).double().mean().item()


def _rank(size: int, degree: int, generator: torch.Generator) -> int:
    """How many dimensions the features of many keys have."""
    features = _matrix(size, degree, 1).features
    keys = torch.randn(2 * features.width, size, generator=generator, dtype=torch.float64)
    found: Float[Tensor, "keys width"] = features(keys / keys.norm(dim=1, keepdim=True))
    return int(torch.linalg.matrix_rank(found, rtol=1e-6))


def crossing(answered: Mapping[str, float]) -> float:
    """The number of pairs of which `ENOUGH` is answered, between two measured ones."""
    points = [(float(pairs), share) for pairs, share in answered.items()]
    if points[0][1] < ENOUGH:
        return points[0][0]
    for (few, above), (many, below) in itertools.pairwise(points):
        if below < ENOUGH:
            return few + (many - few) * (above - ENOUGH) / (above - below)
    return points[-1][0]


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Capacity by degree over its limit in theory, one pass by the window, and rare directions by steps."""
    from mnemos.report.drawing import FAINT, TUNED, WITH, WITHOUT, drawing, label

    with drawing(2.8, columns=3) as (figure, (held, window, rare)):
        looks = zip(measured["answered"].items(), (WITHOUT, WITH, TUNED), strict=True)
        for (degree, shares), colour in looks:
            counts, percents = [int(n) for n in shares], [100 * share for share in shares.values()]
            most = measured["dimensions"][degree]
            held.plot(counts, [100 * min(1, most / n) for n in counts], color=FAINT, linewidth=4)
            held.plot(counts, percents, color=colour, marker="o", markersize=3, linewidth=1.3)
            label(held, counts[0], 104, f"p = {degree}", colour).set_position((-3, 0))
        held.set_xscale("log", base=2)
        held.set_xticks([4, 16, 64, 256], ["4", "16", "64", "256"])
        held.set(title="Features of degree p", ylabel="values answered, %", ylim=(55, 107))
        held.set_xlabel(f"pairs, keys of {measured['size']} numbers")
        excess = [100 * share for share in measured["excess"].values()]
        window.plot(WINDOWS, excess, color=WITH, marker="o", markersize=3, linewidth=1.6)
        window.set_xscale("log", base=2)
        window.set_xticks(WINDOWS, [str(size) for size in WINDOWS])
        window.set(title="Window", xlabel="steps in the window")
        window.set(ylabel="loss above the least, %", ylim=(0, None))
        for name, text, colour, side in (
            ("descent", "descent", WITHOUT, "left"),
            ("muon", "Muon", WITH, "right"),
        ):
            steps, errors = [int(n) for n in measured["rare"][name]], list(measured["rare"][name].values())
            rare.plot(steps, errors, color=colour, marker="o", markersize=3, linewidth=1.6)
            middle = (len(steps) - 1) // 2
            beside = label(rare, steps[middle], errors[middle], text, colour)
            beside.set(ha=side, position=(6 if side == "left" else -6, 0))
        rare.set_xscale("log", base=2)
        rare.set_xticks(steps, [str(n) for n in steps])
        rare.set(title="Rare directions", xlabel="steps", ylabel="error", yscale="log")
    return figure


STUDY = Study(
    name="atlas",
    title="Features hold d^p pairs, a window learns the context, Muon rare directions (Behrouz et al. 2025)",
    measure=measure,
    thresholds={
        "dimensions_error": Threshold("==", 0),
        "capacity_error": Threshold("<=", 0.15),
        "second_degree_holds": Threshold(">=", 3),
        "third_degree_holds": Threshold(">=", 10),
        "window_excess_ratio": Threshold("<=", 0.6),
        "pruned_difference": Threshold("<=", 1e-5),
        "pruned_excess_ratio": Threshold("<=", 0.85),
        "noise_learned_pruned": Threshold("<=", 0.03),
        "rare_ratio": Threshold("<=", 0.2),
        "from_half_a_step": Threshold("<=", 0.15),
        "falling_rate_error": Threshold("<=", 0.01),
    },
    paper=[
        Figure("pairs that a matrix holds, keys of d", "O(d)", "Behrouz et al. 2025, proposition 1"),
        Figure("with features of degree p", "O(d^p)", "Behrouz et al. 2025, proposition 2"),
    ],
    draw=draw,
)
