"""The look of every figure, in the report and of the studies, and the files they are written to."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Told apart by lightness as well as by hue, for readers who do not see the difference of hues.
WITHOUT, WITH, TUNED, FAINT, INK = "#9aa0a8", "#1857a4", "#d9772b", "#d7dadf", "#23272e"
WIDTH = 7.6  # inches, the column of the page
STYLE: Any = {  # matplotlib types its settings by name
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "pdf.fonttype": 42,
    "font.family": "sans-serif",
    "font.sans-serif": ["Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": "#8b9099",
    "axes.labelcolor": "#4a505a",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#4a505a",
    "ytick.color": "#4a505a",
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "text.color": INK,
    "grid.color": "#eceef1",
    "axes.grid": True,
    "axes.axisbelow": True,
    "svg.hashsalt": "mnemos",  # the same measurements give the same file
}
UNDATED: dict[str, Any] = {".pdf": {"CreationDate": None}, ".png": None, ".svg": {"Date": None}}


@contextmanager
def drawing(height: float | int, columns: int = 1, rows: int = 1) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure of the page's width in the page's style, without any global state of pyplot.

    Args:
        height: in inches.
        columns: axes beside each other.
        rows: of such axes, one below the other; given are those of the first row first.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False).flatten().tolist()


def label(axes: Axes, x: float | int, y: float | int, text: str, colour: str, raised: float | int = 0) -> Any:
    """A name at the end of a line, in place of a legend; `raised` keeps two apart, in points."""
    return axes.annotate(
        text,
        (x, y),
        (6, raised),
        textcoords="offset points",
        va="center",
        color=colour,
        annotation_clip=False,
    )


def curve(
    axes: Axes,
    shares: Mapping[str, float],
    text: str,
    colour: str,
    *,
    raised: float | int = 0,
    linewidth: float = 1.6,
    linestyle: str = "-",
) -> None:
    """Shares in per cent over the whole numbers that are their names, and the line's own name at its end."""
    numbers, percents = [int(name) for name in shares], [100 * share for share in shares.values()]
    axes.plot(
        numbers, percents, color=colour, linewidth=linewidth, linestyle=linestyle, marker="o", markersize=3
    )
    if text:
        label(axes, numbers[-1], percents[-1], text, colour, raised)


def svg(figure: Figure) -> str:
    """The figure as an element that can stand in a page."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata=UNDATED[".svg"])
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def check_path(path: Path) -> None:
    """Refuses a path that `save` could not write, which one wants to know before measuring for an hour.

    Raises:
        ValueError: the suffix is not that of a figure, the folder is missing, or the path is a folder.
    """
    if path.suffix not in UNDATED:
        raise ValueError(f"a figure is written to a file that ends in {', '.join(UNDATED)}; got {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, where the file of a figure was expected")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to write {path.name} to")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure, in the form that the suffix names: .pdf, .png or .svg.

    Raises:
        ValueError: as `check_path`.
    """
    check_path(path)
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=160, metadata=UNDATED[path.suffix])
