"""What the embedded store has acknowledged survives kill -9, and a store that promises too early is caught.

A killed process's writes survive in the operating system, so this is not a test of a loss of power. The
moments of the kills are the machine's own: counts differ from run to run, whatever the seed.
"""

import math
import tempfile
from pathlib import Path
from typing import Any

import mnemos
from mnemos.progress import Advance, between, silent
from mnemos.stores.base import Store
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.testing.crash import CrashReport, kill_again_and_again
from mnemos.testing.faulty_stores import EarlyStore, PiecemealStore

CONTROL_KILLS = 200  # at most: one in ten or so finds the fault


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    report = _killed(mnemos.open, 1000 if full else 200, seed, between(advance, 0.0, 0.7))
    early = _caught_after(open_early, "lost", seed, between(advance, 0.7, 0.85))
    piecemeal = _caught_after(open_piecemeal, "partial", seed, between(advance, 0.85, 1.0))
    return {
        "kills": report.kills,
        "kills_within_an_operation": report.in_flight,
        "of_these_completed": report.completed,
        "acknowledged_operations": report.acknowledged,
        "acknowledged_lost": len(report.lost),
        "batches_partly_there": len(report.partial),
        "faults": len(report.faults),
        "first_complaint": next(iter([*report.lost, *report.partial, *report.faults]), None),
        "early_acknowledgement_caught_after_kills": early,
        "write_in_pieces_caught_after_kills": piecemeal,
    }


def open_early(path: Path) -> Store:
    """Acknowledges updates before they are done."""
    return EarlyStore(mnemos.open(path))


def open_piecemeal(path: Path) -> Store:
    """Writes vectors and metadata in two transactions."""
    return PiecemealStore(mnemos.open(path))


def _killed(open_store: Any, kills: int, seed: int, advance: Advance) -> CrashReport:
    def watch(report: CrashReport) -> None:
        advance(report.kills / kills, f"{report.kills} kills, {report.acknowledged} acknowledged operations")

    with tempfile.TemporaryDirectory() as folder:
        return kill_again_and_again(open_store, Path(folder) / "store", kills, seed, watch)


def _caught_after(open_store: Any, fault: str, seed: int, advance: Advance) -> int | float:
    """How many kills it took to find the fault, in rounds of ten; infinite if they did not."""
    for done in range(0, CONTROL_KILLS, 10):
        report = _killed(open_store, 10, seed + done, silent)
        advance(done / CONTROL_KILLS, f"control: {done + 10} kills")
        if getattr(report, fault):
            return done + 10
    return math.inf


STUDY = Study(
    name="store-faults",
    title="Nothing acknowledged is lost when the process is killed",
    measure=measure,
    thresholds={
        "acknowledged_lost": Threshold("==", 0),
        "batches_partly_there": Threshold("==", 0),
        "faults": Threshold("==", 0),
        "early_acknowledgement_caught_after_kills": Threshold("<=", CONTROL_KILLS),
        "write_in_pieces_caught_after_kills": Threshold("<=", CONTROL_KILLS),
    },
    paper=[
        Figure(
            "crash vulnerabilities found in eleven widely used systems, databases among them",
            60,
            "Pillai et al. 2014, All File Systems Are Not Created Equal, OSDI",
        )
    ],
)
