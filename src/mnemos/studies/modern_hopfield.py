"""Networks with a steep energy: how many patterns one update finds, and that the update is attention.

Ramsauer et al. 2021: the number of patterns that can be retrieved grows exponentially with their width, one
update is enough where patterns are apart, and the update is that of attention. Krotov & Hopfield 2016 and
Demircigil et al. 2017: patterns of +1 and -1, of which the classical network of as many units holds few.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from mnemos.memories.base import AddressableMemory
from mnemos.memories.dense_hopfield import DenseHopfield
from mnemos.memories.hopfield import Hopfield
from mnemos.memories.modern_hopfield import ModernHopfield
from mnemos.ops.hopfield import continuous_energy, polynomial, retrieve, signs
from mnemos.progress import Advance, between
from mnemos.studies.study import Figure, Study, Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

WIDTHS = (16, 24, 32, 48, 64)
COUNTS = (10, 100, 1_000, 10_000, 100_000)
BITS = 100
BINARY_COUNTS = (14, 50, 1_000, 10_000)
QUERIES = 1_000


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    retrieved = _retrieved(3 if full else 1, generator, between(advance, 0.0, 0.5))
    binary = _binary(1_000 if full else 200, generator, between(advance, 0.5, 0.9))
    advance(0.9, "the update against attention, and the energy")
    # Where half of the patterns are found, by interpolation in the logarithm of their number.
    half = {width: _crossing(by) for width, by in retrieved.items()}
    return {
        "retrieved": retrieved,
        "retrieved_64_1000": retrieved["64"]["1000"],
        "retrieved_64_10000": retrieved["64"]["10000"],
        "retrieved_16_10000": retrieved["16"]["10000"],
        "patterns_for_half": half,
        "growth_from_16_to_24": half["24"] / half["16"],
        "growth_from_24_to_32": half["32"] / half["24"],
        "binary": binary,
        "binary_modern_1000": binary["modern"]["1000"],
        "binary_dense_1000": binary["exponential"]["1000"],
        "binary_classical_1000": binary["hebb"]["1000"],
        "attention_difference": _against_attention(generator),
        "energy_rise": _greatest_rise(generator),
        "mean_difference": _towards_mean(generator),
    }


def _retrieved(repetitions: int, generator: torch.Generator, advance: Advance) -> dict[str, dict[str, float]]:
    """The share of patterns that one update finds from their first half, by width and number."""
    shares: dict[str, dict[str, float]] = {}
    for place, width in enumerate(WIDTHS):
        shares[str(width)] = {}
        for number, count in enumerate(COUNTS):
            advance((place + number / len(COUNTS)) / len(WIDTHS), f"{count:,} patterns of {width}")
            found = 0.0
            memory = ModernHopfield(width, count, inverse_temperature=1.0)
            rows = max(1, QUERIES // count)  # few patterns are many networks
            for _ in range(repetitions):
                patterns = torch.randn(rows, count, width, generator=generator)
                patterns = functional.normalize(patterns, dim=-1) * width**0.5
                state = memory.write(memory.initial_state(rows), patterns, patterns)
                asked = patterns[:, :QUERIES].clone()
                asked[..., width // 2 :] = 0
                answers = torch.cat([memory.read(state, some).values for some in asked.split(100, 1)], 1)
                close = functional.cosine_similarity(answers, patterns[:, :QUERIES], dim=-1) > 0.99
                found += close.double().mean().item() / repetitions
            shares[str(width)][str(count)] = found
    return shares


def _crossing(shares: Mapping[str, float]) -> float:
    """The number of patterns at which half are found; the greatest tried if more than half still are."""
    counts, values = [int(count) for count in shares], list(shares.values())
    for low, high, above, below in zip(counts, counts[1:], values, values[1:], strict=False):
        if below < 0.5 <= above:
            return low * (high / low) ** ((above - 0.5) / (above - below))
    return float(counts[-1] if values[-1] >= 0.5 else counts[0])


def _binary(queries: int, generator: torch.Generator, advance: Advance) -> dict[str, dict[str, float]]:
    """The share of patterns of 100 bits found without a wrong one after 10 % were flipped, by memory."""
    shares: dict[str, dict[str, float]] = {}
    for number, count in enumerate(BINARY_COUNTS):
        memories: dict[str, AddressableMemory] = {
            "hebb": Hopfield(BITS),
            "square": DenseHopfield(BITS, count, partial(polynomial, degree=2)),
            "cube": DenseHopfield(BITS, count, partial(polynomial, degree=3)),
            "fourth": DenseHopfield(BITS, count, partial(polynomial, degree=4)),
            "exponential": DenseHopfield(BITS, count),
            "modern": ModernHopfield(BITS, count, inverse_temperature=1.0),
        }
        rows = max(1, queries // count)
        patterns = signs(torch.randn(rows, count, BITS, generator=generator))
        known = patterns[:, : queries if count <= 1_000 else queries // 4]
        flips = torch.rand(known.shape, generator=generator) < 0.1
        for place, (name, memory) in enumerate(memories.items()):
            advance((number + place / len(memories)) / len(BINARY_COUNTS), f"{count:,} of 100 bits: {name}")
            state = memory.write(memory.initial_state(rows), patterns, patterns)
            answers = signs(memory.read(state, torch.where(flips, -known, known)).values)
            share = (answers == known).all(-1).double().mean().item()
            shares.setdefault(name, {})[str(count)] = share
    return shares


def _problem(generator: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    shapes = [(2, 200, 64), (2, 500, 64)]
    queries, keys = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return queries, keys


def _against_attention(generator: torch.Generator) -> float:
    """The greatest difference of one read from torch's attention."""
    queries, keys = _problem(generator, torch.float32)
    memory = ModernHopfield(64, 500)
    state = memory.write(memory.initial_state(2), keys, keys)
    expected = functional.scaled_dot_product_attention(queries, keys, keys)
    return (memory.read(state, queries).values - expected).abs().max().item()


def _greatest_rise(generator: torch.Generator) -> float:
    """How far any of 20 updates raised the energy, at four temperatures, in float64."""
    queries, keys = _problem(generator, torch.float64)
    rise = -math.inf
    for beta in (0.01, 0.125, 0.3, 2.0):
        states, before = queries, continuous_energy(queries, keys, beta)
        for _ in range(20):
            states = retrieve(states, keys, keys, beta)
            now = continuous_energy(states, keys, beta)
            rise, before = max(rise, (now - before).max().item()), now
    return rise


def _towards_mean(generator: torch.Generator) -> float:
    """How far an update at β = 1e-6 ends from the mean of all patterns."""
    queries, keys = _problem(generator, torch.float32)
    memory = ModernHopfield(64, 500, inverse_temperature=1e-6)
    state = memory.write(memory.initial_state(2), keys, keys)
    return (memory.read(state, queries).values - keys.mean(1, keepdim=True)).abs().max().item()


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Left, what one update finds; right, patterns of bits in networks of 100 units."""
    from mnemos.report.drawing import INK, TUNED, WITH, WITHOUT, drawing, label

    names = {
        "hebb": ("classical", WITHOUT),
        "cube": ("cube", TUNED),
        "fourth": ("fourth power", INK),
        "exponential": ("exponential", WITH),
    }
    with drawing(height=2.9, columns=2) as (figure, [left, right]):
        for number, (width, shares) in enumerate(measured["retrieved"].items()):
            shade = (number + 1) / len(measured["retrieved"])
            left.plot(
                [int(count) for count in shares],
                list(shares.values()),
                color=WITH,
                alpha=0.25 + 0.75 * shade,
                linewidth=1.6,
                marker="o",
                markersize=3.5,
            )
            raised = (-4.0, 5.0)[number] if number < 2 else 0.0  # the lowest ends would lie on each other
            label(left, int(list(shares)[-1]), list(shares.values())[-1], width, INK, raised)
        left.set_title("Found from half of a pattern, by width")
        for name, (_, colour) in names.items():
            shares = measured["binary"][name]
            right.plot(
                [int(count) for count in shares],
                list(shares.values()),
                color=colour,
                linewidth=1.6,
                marker="o",
                markersize=3.5,
            )
        for (said, colour), where in zip(names.values(), _NAMED_AT, strict=True):
            right.annotate(said, where, color=colour)
        right.set_title("100 bits, a tenth of them flipped")
        for axes in (left, right):
            axes.set(xscale="log", xlabel="patterns stored", ylabel="share found", ylim=(-0.04, 1.06))
    return figure


_NAMED_AT = ((30, 0.35), (60, 0.6), (650, 0.45), (1_400, 0.92))

STUDY = Study(
    name="modern-hopfield",
    title="Exponentially many patterns, found in one update that is attention (Ramsauer et al. 2021)",
    measure=measure,
    thresholds={
        "retrieved_64_1000": Threshold(">=", 0.99),
        "retrieved_64_10000": Threshold(">=", 0.97),
        "growth_from_16_to_24": Threshold(">=", 5.0),
        "growth_from_24_to_32": Threshold(">=", 5.0),
        "binary_modern_1000": Threshold(">=", 0.99),
        "binary_dense_1000": Threshold(">=", 0.99),
        "binary_classical_1000": Threshold("<=", 0.01),
        "attention_difference": Threshold("<=", 1e-6),
        "energy_rise": Threshold("<=", 1e-9),
        "mean_difference": Threshold("<=", 1e-4),
    },
    paper=[
        Figure("patterns that can be retrieved", "exponentially many in their width", "Ramsauer et al. 2021"),
        Figure(
            "updates that are needed", "one, for patterns that are apart", "Ramsauer et al. 2021, theorem 4"
        ),
        Figure("patterns with F(x) = exp(x)", "about 2^(N/2)", "Demircigil et al. 2017"),
        Figure("patterns with F(x) = xⁿ", "of the order N^(n-1)", "Krotov & Hopfield 2016"),
    ],
    draw=draw,
)
