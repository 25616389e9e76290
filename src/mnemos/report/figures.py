"""The report's figures: measurements in, SVG out. Each takes what one step of the demo measured."""

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from mnemos.demo.results import Evicted, Learned, Trained
from mnemos.report.drawing import FAINT, INK, TUNED, WITH, WITHOUT, drawing, label, svg


def training(trained: Trained) -> str:
    """Loss over the steps of training."""
    with drawing(height=1.9) as (figure, [axes]):
        steps, nats = zip(*trained.losses, strict=True)
        axes.plot(steps, [math.exp(value) for value in nats], color=INK, linewidth=1.4)
        _perplexity_axis(axes, "perplexity in training")
        axes.set_xlabel("step")
        axes.set_xlim(0, max(steps))
    return svg(figure)


def domains(learned: Learned) -> str:
    """Where each domain stood before, after reading, and after fine-tuning: one row per domain."""
    rows = [
        ("unseen text of A", learned.a_without, learned.a_with, learned.a_tuned),
        ("unseen text of B", learned.b_without, learned.b_with, learned.b_tuned),
    ]
    with drawing(height=2.4) as (figure, [axes]):
        for y, (_, *values) in enumerate(rows):
            axes.plot([min(values), max(values)], [y, y], color=FAINT, linewidth=2, zorder=1)
            for value, (colour, name, dy) in zip(values, _MARKS, strict=True):
                axes.scatter([value], [y], s=64, color=colour, zorder=3)
                axes.annotate(
                    f"{name} {value:.1f}",
                    (value, y),
                    (0, dy),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    color=colour if colour != WITHOUT else "#6b717b",
                )
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(-0.8, len(rows) - 0.45)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.15)
        _perplexity_axis(axes, "perplexity per token (lower is better)", horizontal=True)
    return svg(figure)


_MARKS = ((WITHOUT, "alone", -17), (WITH, "with memory", 15), (TUNED, "fine-tuned", -30))


def along_the_text(learned: Learned) -> str:
    """Perplexity along the unseen text of B, with and without memory."""
    points = learned.along
    thousands = [point["bytes"] / 1e3 for point in points]
    without = [math.exp(point["without"]) for point in points]
    remembered = [math.exp(point["with_memory"]) for point in points]
    with drawing(height=2.5) as (figure, [axes]):
        axes.fill_between(thousands, remembered, without, color=WITH, alpha=0.07, linewidth=0)
        axes.plot(thousands, without, color=WITHOUT, linewidth=1.4)
        axes.plot(thousands, remembered, color=WITH, linewidth=1.4)
        _perplexity_axis(axes, "perplexity")
        axes.set_xlabel("position in the unseen text, thousand bytes")
        axes.set_xlim(0, max(thousands))
        label(axes, thousands[-1], without[-1], "alone", "#6b717b")
        label(axes, thousands[-1], remembered[-1], "with memory", WITH)
    return svg(figure)


def store_size(learned: Learned) -> str:
    """Perplexity on both domains against the share of the store."""
    shares = [100.0 * point["share"] for point in learned.curve]
    with drawing(height=2.6) as (figure, [axes]):
        lines = [("b", learned.b_without, WITH, "unseen B"), ("a", learned.a_without, INK, "unseen A")]
        ends = {name: learned.curve[-1][name] for name in "ab"}
        for name, without, colour, text in lines:
            axes.axhline(without, color=colour, linewidth=1, linestyle=(0, (2, 3)), alpha=0.6)
            axes.plot(
                shares,
                [point[name] for point in learned.curve],
                color=colour,
                linewidth=1.6,
                marker="o",
                markersize=4.5,
            )
            higher = ends[name] == max(ends.values())
            label(axes, shares[-1], ends[name], f"{text} {ends[name]:.1f}", colour, 5.0 if higher else -5.0)
        label(axes, shares[-1], learned.b_without, f"B alone {learned.b_without:.1f}", WITH)
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(shares, [f"{share:g} %" for share in shares])
        axes.set_xlim(min(shares) * 0.9, 100)
        axes.set_xlabel(f"share of the memory's {learned.records:,} records, in the order of reading")
        _perplexity_axis(axes, "perplexity")
    return svg(figure)


def growth(learned: Learned) -> str:
    """What reading cost and bought: the size of the memory, and bits per byte of what was just read."""
    read = [point["bytes_read"] / 1e3 for point in learned.growth]
    with drawing(height=2.5, columns=2) as (figure, [size, bits]):
        size.plot(read, [point["disk"] / 1e6 for point in learned.growth], color=INK, linewidth=1.6)
        size.set_title("memory on disk, MB")
        size.set_ylim(0)
        asked = [point for point in learned.growth if point["with_memory"] is not None]
        places = [point["bytes_read"] / 1e3 for point in asked]
        for name, text, colour, ink in (
            ("without", "alone", WITHOUT, "#6b717b"),
            ("with_memory", "with what\nwas read so far", WITH, WITH),
        ):
            costs = [point[name] for point in asked]
            bits.plot(places, costs, color=colour, linewidth=1.4)
            label(bits, places[-1], costs[-1], text, ink)
        bits.set_title("bits per byte of the text as it comes")
        bits.set_ylim(0)
        for axes in (size, bits):
            axes.set_xlim(0, max(read))
            axes.set_xlabel("text read, thousand bytes")
    return svg(figure)


def evictions(evicted: Evicted) -> str:
    """Perplexity on both domains' unseen text after half of the records has gone, by policy."""
    policies = sorted(evicted.policies, key=lambda policy: policy["b"])
    with drawing(height=0.9 + 0.27 * len(policies)) as (figure, [axes]):
        names = [policy["policy"].replace("_", " ") for policy in policies]
        costs = [policy["b"] for policy in policies]
        axes.barh(names, costs, height=0.62, color=WITH)
        axes.invert_yaxis()
        for row, cost in enumerate(costs):
            axes.annotate(
                f"{cost:.1f}", (cost, row), (4, 0), textcoords="offset points", va="center", color=WITH
            )
        lines = ((evicted.b_full, "all records", INK), (evicted.b_without, "no memory", "#6b717b"))
        for value, text, colour in lines:
            axes.axvline(value, color=colour, linewidth=1, linestyle=(0, (2, 3)))
            axes.annotate(
                f"{text} {value:.1f}",
                (value, 1),
                (0, 4),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                color=colour,
            )
        axes.set_xlim(0, 1.08 * max(*costs, evicted.b_without))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("perplexity on unseen text of B")
    return svg(figure)


def _perplexity_axis(axes: Axes, name: str, horizontal: bool = False) -> None:
    """A logarithmic axis with plain numbers."""
    axis = axes.xaxis if horizontal else axes.yaxis
    (axes.set_xscale if horizontal else axes.set_yscale)("log")
    (axes.set_xlabel if horizontal else axes.set_ylabel)(name)
    low, high = axes.get_xlim() if horizontal else axes.get_ylim()
    ticks: list[int] = []
    for steps in ((1, 2, 5), (1, 2, 3, 5, 7), range(1, 10)):  # as few as do
        if len(ticks) < 4:
            ticks = [m * 10**e for e in range(7) for m in steps if low <= m * 10**e <= high]
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())
