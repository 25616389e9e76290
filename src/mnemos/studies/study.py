"""What a study is: a measurement, the thresholds it must meet, and the paper's own figures beside it."""

import json
import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mnemos.progress import Advance, silent
from mnemos.studies.parts import kept

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}


class Threshold(NamedTuple):
    """What a measured value must satisfy: `Threshold(">=", 0.95)`. Not a number never does."""

    comparison: str
    value: float

    def met(self, measured: float | int) -> bool:
        return bool(COMPARISONS[self.comparison](measured, self.value))


class Figure(NamedTuple):
    """A published figure, for orientation; conditions differ, since a study is scaled down."""

    what: str
    value: float | str
    source: str


@dataclass(frozen=True)
class Outcome:
    """What one run of a study found."""

    name: str
    seed: int
    full: bool
    measured: Mapping[str, Any]
    thresholds: Mapping[str, Threshold]
    paper: Sequence[Figure]
    seconds: float
    passed: bool = field(init=False)

    def __post_init__(self) -> None:
        met = [threshold.met(self.measured[name]) for name, threshold in self.thresholds.items()]
        object.__setattr__(self, "passed", all(met))

    def facts(self) -> dict[str, Any]:
        """The outcome as plain data, for JSON: what is not a finite number becomes null."""
        return {
            "name": self.name,
            "seed": self.seed,
            "full": self.full,
            "measured": {name: _plain(value) for name, value in self.measured.items()},
            "thresholds": {name: list(threshold) for name, threshold in self.thresholds.items()},
            "paper": [figure._asdict() for figure in self.paper],
            "seconds": round(self.seconds, 1),
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Study:
    """A paper's headline experiment, scaled down.

    Args:
        name: what it is called on the command line.
        title: one line for a list of studies.
        measure: runs the experiment: (seed, full, advance) -> values by name. `full` asks for the form
            nearer to the paper's, at whatever time it takes. The same seed gives the same values.
        thresholds: by the name of the measured value. What has none is reported only.
        paper: the paper's own figures.
        draw: the study's figure, from what was measured and nothing else. It imports matplotlib itself, in
            the look of `mnemos.report.drawing`, so that only who wants a figure waits for matplotlib.
    """

    name: str
    title: str
    measure: Callable[[int, bool, Advance], Mapping[str, Any]]
    thresholds: Mapping[str, Threshold]
    paper: Sequence[Figure]
    draw: "Callable[[Mapping[str, Any]], Drawing] | None" = None

    def run(
        self, seed: int = 0, *, full: bool = False, advance: Advance | None = None, keep: Path | None = None
    ) -> Outcome:
        """Measures, and holds what was measured to the thresholds.

        Args:
            keep: a file in which finished parts are kept, for studies that have some: run again after an
                interruption, by the same version of mnemos, it goes on from there. `seconds` are this run's.

        Raises:
            ValueError: `keep` is a file of another run.
        """
        start = time.perf_counter()
        run = {"study": self.name, "seed": seed, "full": full, "version": version("mnemos")}
        with kept(keep, run) if keep is not None else nullcontext():
            measured = self.measure(seed, full, advance or silent)
        seconds = time.perf_counter() - start
        return Outcome(self.name, seed, full, measured, self.thresholds, self.paper, seconds)

    def figure(self, measured: Mapping[str, Any]) -> "Drawing":
        """Draws what was measured, in this run or in one whose JSON was kept: both give the same figure.

        Raises:
            ValueError: the study has no figure.
        """
        if self.draw is None:
            raise ValueError(f"the study {self.name!r} has no figure")
        return self.draw(json.loads(json.dumps(_plain(measured), allow_nan=False)))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
