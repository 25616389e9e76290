"""The Hopfield network: how many patterns it holds, how it fails, and what other rules hold.

Hopfield 1982 found about 0.15 patterns per unit; Amit, Gutfreund & Sompolinsky 1985 that in the limit of many
units recall breaks down at once at 0.138. The share of units that do not agree with their field in a stored
pattern has a formula, which holds the network to its theory before anything settles. Storkey 1997 and
Personnaz, Guyon & Dreyfus 1986 hold more with other rules.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mnemos.memories.hopfield import Hopfield, HopfieldState
from mnemos.ops.hopfield import Rule, asynchronous, energy, hebb, pseudo_inverse, signs, storkey, synchronous
from mnemos.progress import Advance, between
from mnemos.studies.study import Figure, Study, Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

UNITS = 1000
LOADS = (0.05, 0.08, 0.10, 0.12, 0.13, 0.138, 0.15, 0.17, 0.20)  # α, patterns per unit
RULES: dict[str, tuple[Rule, tuple[float, ...]]] = {
    "hebb": (hebb, (0.05, 0.1, 0.12, 0.138, 0.15, 0.17, 0.2, 0.25)),
    "storkey": (storkey, (0.1, 0.2, 0.25, 1 / math.sqrt(2 * math.log(UNITS)), 0.3, 0.35, 0.4)),
    "pseudo_inverse": (pseudo_inverse, (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95)),
}
SWEEPS = 200  # more than any state needs to settle


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    networks = 10 if full else 4
    measured: dict[str, Any] = {"units": UNITS, "networks": networks}
    measured |= _collapse(networks, generator, between(advance, 0.0, 0.5))
    measured |= _one_step(800 if full else 200, generator, between(advance, 0.5, 0.6))
    measured |= _flips(400 if full else 200, generator, between(advance, 0.6, 0.75))
    advance(0.75, "one unit after the other, and the energy after each")
    measured["energy_rise"] = _greatest_rise(generator)
    measured |= _rules(generator, between(advance, 0.8, 1.0))
    return measured


def _collapse(networks: int, generator: torch.Generator, advance: Advance) -> dict[str, Any]:
    """From each stored pattern to where it settles: the share of wrong bits by load."""
    errors: dict[str, dict[str, float]] = {}
    recalled: dict[str, dict[str, float]] = {}
    for number, units in enumerate((UNITS // 2, UNITS)):
        memory = Hopfield(units, sweeps=SWEEPS)
        ran = [(0.0, 0.0)] * len(LOADS)
        # Small networks vary more, so there are more of them.
        many = networks * UNITS // units
        for network in range(many):
            share = (number + network / many) / 2
            advance(share, f"network {network + 1} of {many} with {units} units")
            patterns, states = _written(memory, LOADS, generator)
            for place, (load, state) in enumerate(zip(LOADS, states, strict=True)):
                known = patterns[:, : round(load * units)]
                overlaps = (memory.read(state, known).values * known).mean(-1)
                error, good = ran[place]
                ran[place] = (
                    error + (1 - overlaps).mean().item() / 2 / many,
                    good + (overlaps > 0.9).double().mean().item() / many,
                )
        errors[str(units)] = {str(load): error for load, (error, _) in zip(LOADS, ran, strict=True)}
        recalled[str(units)] = {str(load): good for load, (_, good) in zip(LOADS, ran, strict=True)}
    small, large = errors[str(UNITS // 2)], errors[str(UNITS)]
    rises = [by["0.17"] - by["0.12"] for by in (small, large)]
    return {
        "final_error": errors,
        "recalled": recalled,
        "error_at_0.10": large["0.1"],
        "error_at_0.12": large["0.12"],
        "error_at_0.138": large["0.138"],
        "from_0.0275_at_0.138": abs(large["0.138"] - 0.0275),
        "error_at_0.20": large["0.2"],
        "rise_with_half_the_units": rises[0],
        "rise": rises[1],
        "sharper_with_more_units": rises[1] / rises[0],
    }


def _written(
    memory: Hopfield, loads: tuple[float, ...], generator: torch.Generator
) -> tuple[Tensor, list[HopfieldState]]:
    """Random patterns, and the state of one network when it holds each load of them."""
    counts = [round(load * memory.input_size) for load in loads]
    patterns = signs(torch.randn(1, counts[-1], memory.input_size, generator=generator))
    states, state = [], memory.initial_state(1)
    for start, end in zip([0, *counts], counts, strict=False):
        state = memory.write(state, patterns[:, start:end], patterns[:, start:end])
        states.append(state)
    return patterns, states


def _one_step(networks: int, generator: torch.Generator, advance: Advance) -> dict[str, Any]:
    """The share of units that leave a stored pattern in one synchronous step, against its formula."""
    found = dict.fromkeys(LOADS, 0.0)
    for network in range(networks):
        advance(network / networks, "one step from the stored patterns")
        patterns = signs(torch.randn(round(LOADS[-1] * UNITS), UNITS, generator=generator))
        for load in LOADS:
            known = patterns[: round(load * UNITS)]
            # The sum of all that Hebb's rule adds, in one product.
            turned = synchronous(known.mT @ known / UNITS, known)
            found[load] += (turned != known).double().mean().item() / networks
    differences = [abs(found[load] - one_step_error(round(load * UNITS), UNITS)) for load in LOADS]
    return {
        "one_step_error": {str(load): error for load, error in found.items()},
        "one_step_formula": {str(load): one_step_error(round(load * UNITS), UNITS) for load in LOADS},
        "one_step_limit": {str(load): math.erfc(1 / math.sqrt(2 * load)) / 2 for load in LOADS},
        "one_step_difference": max(differences),
    }


def one_step_error(patterns: int, units: int) -> float:
    """½ erfc(1 / √(2α)), the chance that a unit disagrees with its field in a stored pattern.

    N times the cross-talk of the other P - 1 patterns is a sum of (P - 1)(N - 1) signs against N - 1 of the
    pattern's own. Such a sum goes in steps of two, so a unit turns beyond N. Hence α is
    (P - 1)(N - 1) / N², and not P / N, from which 1,000 units differ by up to 2e-4.
    """
    load = (patterns - 1) * (units - 1) / units**2
    return math.erfc(1 / math.sqrt(2 * load)) / 2


def _flips(networks: int, generator: torch.Generator, advance: Advance) -> dict[str, float]:
    """The share of patterns that come back without one wrong bit at load 0.05 after 10 % were flipped."""
    memory = Hopfield(UNITS, sweeps=SWEEPS)
    exact = 0.0
    for network in range(networks):
        advance(network / networks, "from a tenth of the bits flipped")
        patterns, [state] = _written(memory, (0.05,), generator)
        found = memory.read(state, _flipped(patterns, 0.1, generator)).values
        exact += (found == patterns).all(-1).double().mean().item() / networks
    return {"recovered_exactly": exact}


def _flipped(patterns: Tensor, share: float, generator: torch.Generator) -> Tensor:
    flips = torch.rand(patterns.shape, generator=generator) < share
    return torch.where(flips, -patterns, patterns)


def _greatest_rise(generator: torch.Generator) -> float:
    """How far any turn of a single unit raised the energy, at a load beyond capacity, from random states.

    Couplings are whole numbers here, N times those of the memory, so that the energy is exact.
    """
    patterns = signs(torch.randn(200, UNITS, generator=generator, dtype=torch.float64))
    weights = (patterns.mT @ patterns).fill_diagonal_(0)
    states = signs(torch.randn(16, UNITS, generator=generator, dtype=torch.float64))
    rise, before = -math.inf, energy(weights, states)
    for unit in 2 * list(range(UNITS)):
        states = asynchronous(weights, states, order=[unit])
        now = energy(weights, states)
        rise, before = max(rise, (now - before).max().item()), now
    return rise


def _rules(generator: torch.Generator, advance: Advance) -> dict[str, Any]:
    """By rule and load: the share of patterns that stay as they are, and that come back from 10 % flips."""
    stable: dict[str, dict[str, float]] = {}
    recovered: dict[str, dict[str, float]] = {}
    for number, (name, (rule, loads)) in enumerate(RULES.items()):
        advance(number / len(RULES), f"what {name} holds")
        memory = Hopfield(UNITS, rule, sweeps=SWEEPS)
        patterns, states = _written(memory, loads, generator)
        stable[name], recovered[name] = {}, {}
        for load, state in zip(loads, states, strict=True):
            known = patterns[:, : min(200, round(load * UNITS))]  # the oldest, which suffer most
            for shares, queries in ((stable, known), (recovered, _flipped(known, 0.1, generator))):
                good = (memory.read(state, queries).values * known).mean(-1) > 0.99
                shares[name][f"{load:.3g}"] = good.double().mean().item()
    return {
        "stable": stable,
        "recovered": recovered,
        "hebb_stable_at_0.25": stable["hebb"]["0.25"],
        "storkey_stable_at_0.269": stable["storkey"]["0.269"],
        "pseudo_inverse_stable_at_0.95": stable["pseudo_inverse"]["0.95"],
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Left, wrong bits against the load; right, what each rule holds."""
    from mnemos.report.drawing import FAINT, INK, TUNED, WITH, WITHOUT, drawing, label

    def line(axes: Any, points: Mapping[str, float], colour: str, name: str, **style: Any) -> None:
        x, y = [float(load) for load in points], list(points.values())
        axes.plot(x, y, color=colour, linewidth=1.6, **style)
        if name:
            label(axes, x[-1], y[-1], name, colour)

    with drawing(height=2.9, columns=2) as (figure, [left, right]):
        left.axvline(0.138, color=FAINT, linewidth=1.4)
        left.annotate("0.138", (0.138, 0.40), (-3, 0), textcoords="offset points", ha="right", color=INK)
        for units, colour in ((UNITS // 2, WITHOUT), (UNITS, WITH)):
            errors = measured["final_error"][str(units)]
            line(left, errors, colour, f"{units:,} units", marker="o", markersize=3.5)
        line(left, measured["one_step_formula"], INK, "", linestyle=(0, (2, 2)))
        line(
            left,
            measured["one_step_error"],
            INK,
            "one step,\nand its formula",
            marker="o",
            markersize=3.5,
            linestyle="none",
        )
        left.set_title("Recall breaks down at once")
        left.set(
            xlabel="patterns per unit",
            ylabel="share of wrong bits",
            ylim=(-0.01, 0.42),
            xticks=(0.05, 0.1, 0.15, 0.2),
        )
        for name, colour in zip(RULES, (INK, TUNED, WITH), strict=True):
            line(right, measured["stable"][name], colour, "", marker="o", markersize=3.5)
            line(right, measured["recovered"][name], colour, "", linestyle=(0, (2, 2)))
        right.annotate("Hebb", (0.01, 0.15), color=INK)
        right.annotate("Storkey", (0.165, 0.6), color=TUNED)
        right.annotate("pseudo-inverse", (0.62, 0.9), color=WITH)
        right.annotate("dashed: from a tenth\nof the bits flipped", (0.58, 0.5), color=INK)
        right.set_title("What each rule holds")
        right.set(xlabel="patterns per unit", ylabel="share of patterns", ylim=(-0.03, 1.06), xlim=(0, 1))
    return figure


STUDY = Study(
    name="hopfield",
    title="The network that breaks down at 0.138 patterns per unit (Hopfield 1982; Amit et al. 1985)",
    measure=measure,
    thresholds={
        "error_at_0.10": Threshold("<", 0.002),
        "error_at_0.12": Threshold("<", 0.01),
        "from_0.0275_at_0.138": Threshold("<=", 0.0175),  # in [0.01, 0.045]
        "error_at_0.20": Threshold(">", 0.25),  # a small one would mean that patterns are kept elsewhere
        "sharper_with_more_units": Threshold(">", 1.0),
        "one_step_difference": Threshold("<=", 1e-4),
        "recovered_exactly": Threshold(">=", 0.995),
        "energy_rise": Threshold("<=", 0.0),
        "hebb_stable_at_0.25": Threshold("<=", 0.05),
        "storkey_stable_at_0.269": Threshold(">=", 0.99),
        "pseudo_inverse_stable_at_0.95": Threshold("==", 1.0),
    },
    paper=[
        Figure("patterns per unit before recall breaks down", 0.138, "Amit, Gutfreund & Sompolinsky 1985"),
        Figure("share of wrong bits just below", 0.016, "Amit, Gutfreund & Sompolinsky 1985"),
        Figure("patterns per unit found by simulation, 30 and 100 units", 0.15, "Hopfield 1982"),
        Figure("patterns under Storkey's rule", "N / sqrt(2 ln N)", "Storkey 1997"),
        Figure("linearly independent patterns under the pseudo-inverse", "N", "Personnaz et al. 1986"),
    ],
    draw=draw,
)
