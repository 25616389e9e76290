"""What a read of memorizing attention takes when the steps it remembers are in an archive.

    OMP_NUM_THREADS=1 python benchmarks/archive.py [--rounds 5] [--steps 10000 100000]

One layer of width 256 with 8 heads and a window of 512, batch 1, without gradients, finds the best 32 steps
of those remembered for each of 512 steps, and for one. They are in its state, or in an archive on disk beside
an empty state; committing them, 4,096 at a time, is timed too. The search is exact in both. Every round runs
every form once, in turn; what is counted is the processor time of the one thread.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

import mnemos
from mnemos.memories import Archive, MemorizingAttention, MemorizingState
from mnemos.ops.delta_rule import unit

WIDTH, HEADS, WINDOW, TOP_K, PART = 256, 8, 512, 32, 4096


def layer(slots: int, archive: Archive | None = None) -> MemorizingAttention:
    return MemorizingAttention(WIDTH, window=WINDOW, slots=slots, top_k=TOP_K, heads=HEADS, archive=archive)


def full(memory: MemorizingAttention) -> MemorizingState:
    """A state that holds as much as it can, of random keys."""
    state = memory.initial_state(1)
    clock = state.clock + state.keys.shape[1]
    keys = unit(torch.randn_like(state.keys))
    return state._replace(keys=keys, values=torch.randn_like(keys), clock=clock)


def commit(memory: MemorizingAttention, steps: int) -> float:
    """Milliseconds that it takes to commit so many steps."""
    taken = 0.0
    for start in range(0, steps, PART):
        state = full(memory)
        state = state._replace(committed=state.committed + PART - min(PART, steps - start))
        begin = time.process_time()
        memory.commit(state, metadata={"title": "random numbers"})
        taken += time.process_time() - begin
    return 1e3 * taken


def timed(forms: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    """Milliseconds of each form, the median of the rounds after one more."""
    taken: dict[Any, list[float]] = {name: [] for name in forms}
    for number in track(range(rounds + 1), "Rounds"):
        for name, form in forms.items():
            start = time.process_time()
            form()
            if number:
                taken[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def rows(steps: int, rounds: int, folder: Path) -> Iterator[str]:
    """Rows of the table, for so many steps in the state and in an archive."""
    with mnemos.open(folder / f"{steps}.memory") as store, torch.no_grad():
        in_state, in_archive = layer(steps), layer(PART, Archive(store))
        written = {"state": "", "archive": f"{commit(in_archive, steps):.0f}"}
        assert store.count() == steps
        states = {"state": (in_state, full(in_state)), "archive": (in_archive, in_archive.initial_state(1))}
        inputs = torch.randn(1, WINDOW, WIDTH)
        taken = timed(
            {
                (where, length): partial(memory, inputs[:, :length], state)
                for where, (memory, state) in states.items()
                for length in (WINDOW, 1)
            },
            rounds,
        )
    for where in states:
        many, one = taken[where, WINDOW], taken[where, 1]
        yield f"| {steps:,} in the {where} | {many:.0f} | {one:.1f} | {written[where]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=[10_000, 100_000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        table = [row for steps in arguments.steps for row in rows(steps, arguments.rounds, Path(folder))]
    print(f"\nMilliseconds, median of {arguments.rounds} rounds:\n")
    print(f"| steps remembered | {WINDOW} steps read | one step reads | committing them |\n|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
