"""Sparse access memory from a thousand slots to a million: a step, forward and backward, one thread, float32.

    OMP_NUM_THREADS=1 python benchmarks/sparse_access.py [--rounds 5] [--steps 20]

All slots hold 32 random numbers, one row, 4 heads, 4 slots a read. What is counted is the processor time of
one thread, every form once in a round, in turn: exact search, an index of which 8 lists are looked through,
and the dense twin, which makes a new table at every step and is given a fifth of the steps. What a stretch
of steps begins with, a copy of the slots and the building of what is searched, stands for itself. The one
other library with this memory, `dnc`, needs FLANN, which its installation does not bring, and is left out.
"""

import argparse
import gc
import statistics

import torch
from rich.progress import track

from mnemos.memories import SAM
from mnemos.studies.sam import INPUTS, PROBES, SIZES, filled, seconds

EXACT, INDEX, TWIN = "exact", f"{PROBES} lists of an index", "dense twin"


def milliseconds(slots: int, steps: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """To begin, and for one step, by form."""
    memory, state = filled(slots)
    forms = {EXACT: memory, INDEX: SAM(INPUTS, slots, probes=PROBES), TWIN: SAM(INPUTS, slots)}
    forms[TWIN].naive = True
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for number in track(range(rounds + 1), f"{slots:,} slots"):
        for name, form in forms.items():
            gc.collect()
            some = max(2, steps // 5) if form.naive else steps
            begun, stepped = seconds(form, state, some)
            if number:  # the first round does not count
                taken[name].append((1e3 * begun, 1e3 * stepped / some))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"Milliseconds a step, forward and backward, median of {arguments.rounds} rounds, and in brackets")
    print("how many times as fast as the dense twin; then milliseconds to begin a stretch:\n")
    print(f"| slots | {EXACT} | {INDEX} | {TWIN} | begin, exact | begin, index |")
    print("|---" * 6 + "|")
    spread = 1.0
    for slots in SIZES:
        taken = milliseconds(slots, arguments.steps, arguments.rounds)
        steps = {name: [step for _, step in of] for name, of in taken.items()}
        spread = max(spread, *(max(of) / min(of) for of in steps.values()))
        medians = {name: statistics.median(of) for name, of in steps.items()}
        cells = [f"{medians[name]:.2f} ({medians[TWIN] / medians[name]:.1f})" for name in taken]
        cells += [f"{statistics.median(begun for begun, _ in taken[name]):.1f}" for name in (EXACT, INDEX)]
        print(f"| {slots:,} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nSlowest round over fastest, at worst: {spread:.2f}")


if __name__ == "__main__":
    main()
