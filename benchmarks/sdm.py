"""Kanerva's memory, and a modern Hopfield network, beside torch-hd's: one thread, one run, taken in turn.

    OMP_NUM_THREADS=1 python benchmarks/sdm.py [--rounds 9] [--memory]

Both libraries get the same hard locations, radius and words, and are held to the same answers before anything
is timed. torch-hd writes in place, as `write_` does; `write` returns a new state, and the copy of the old one
counts. What is timed is the processor time of the one thread; medians and ratios of medians are printed. The
Hopfield networks differ: torch-hd turns each unit by itself and compares energies (Demircigil et al. 2017),
here all change together (Ramsauer et al. 2021); both are held to the stored pattern.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
import torchhd
from rich.progress import track
from torch import Tensor

from mnemos import SparseDistributed
from mnemos.ops.hamming import unpack
from mnemos.ops.hopfield import retrieve
from mnemos.tree import nbytes

Call = Callable[[], object]
# locations, bits of addresses and words, and the radius that torch-hd chooses for them
SIZES = [(100_000, 512, 218), (10_000, 1000, 447)]
COUNTS = [1, 16, 256]  # words in a call


def signs(*shape: int) -> Tensor:
    return torch.randint(2, shape).float() * 2 - 1


def memories(locations: int, bits: int, radius: int) -> tuple[SparseDistributed, torch.nn.Module]:
    """The same memory twice."""
    ours = SparseDistributed(bits, locations=locations, radius=radius)
    theirs = torchhd.memory.SparseDistributed(locations, bits, bits)
    with torch.no_grad():
        theirs.keys.copy_(unpack(ours.addresses.mT)[:, :bits].float() * 2 - 1)
    theirs.values.data.zero_()
    theirs.threshold = bits - 2 * radius
    return ours, theirs


def calls(locations: int, bits: int, radius: int) -> dict[tuple[str, int], tuple[Call, Call]]:
    """What is compared, by name and words in a call: (ours, theirs)."""
    ours, theirs = memories(locations, bits, radius)
    stored = signs(200, bits)
    state = ours.write(ours.initial_state(1), stored[None], stored[None])
    theirs.write(stored, stored)
    expected = theirs.read(stored).sign().as_subclass(Tensor)
    assert torch.equal(ours.read(state, stored[None]).values[0], expected), "the answers differ"
    compared = {}
    for count in COUNTS:
        words = signs(count, bits)
        for name, write in (("write", ours.write), ("write_", ours.write_)):
            compared[name, count] = (
                lambda words=words[None], write=write: write(state, words, words),
                lambda words=words: theirs.write(words, words),
            )
        compared["read", count] = (
            lambda words=words[None]: ours.read(state, words),
            lambda words=words: theirs.read(words),
        )
    return compared


def hopfield_calls(patterns: int, units: int) -> tuple[Call, Call]:
    """One query with a tenth of its units turned; the field's scale is that of energies, β = 1."""
    stored = signs(patterns, units)
    query = torch.where(torch.rand(units) < 0.1, -stored[3], stored[3])
    ours: Call = lambda: retrieve(query[None], stored, stored, 1.0)  # noqa: E731
    theirs: Call = lambda: torchhd.memory.modern_hopfield(query, stored)  # noqa: E731
    for answer in (ours()[0], theirs()):  # type: ignore[index]
        assert torch.equal(answer.sign(), stored[3]), "the pattern is not found"
    return ours, theirs


def milliseconds(pair: tuple[Call, Call], rounds: int) -> tuple[float, float]:
    """Medians of both; the first round does not count."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for call, times in zip(pair, taken, strict=True):
            start = time.process_time()
            call()
            if number:
                times.append(1e3 * (time.process_time() - start))
    return statistics.median(taken[0]), statistics.median(taken[1])


def print_memory() -> None:
    """Bytes that each hard location takes, its address and its counters."""
    print("| locations x bits | mnemos | torch-hd | ratio |\n|---|---|---|---|")
    for locations, bits, radius in SIZES:
        ours, theirs = memories(locations, bits, radius)
        own = (nbytes(ours.addresses) + nbytes(ours.initial_state(1))) / locations
        their = nbytes(list(theirs.parameters())) / locations
        print(f"| {locations:,} x {bits} | {own:g} | {their:g} | {their / own:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="bytes per hard location, and no timing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.memory:
        print_memory()
        return
    rows = []
    with torch.no_grad():
        for sizes in track(SIZES, "sparse distributed memory"):
            for (name, count), pair in calls(*sizes).items():
                rows.append(
                    (f"{sizes[0]:,} x {sizes[1]}, {name} {count}", *milliseconds(pair, arguments.rounds))
                )
        pair = hopfield_calls(1000, 1000)
        rows.append(("modern Hopfield, 1000 x 1000, 1 query", *milliseconds(pair, arguments.rounds)))
    load = os.getloadavg()[0]
    print(f"Processor time of a call in ms, median of {arguments.rounds} rounds, load average {load:.1f}:\n")
    print("| | mnemos | torch-hd | ratio |\n|---|---|---|---|")
    for name, own, their in rows:
        print(f"| {name} | {own:.2f} | {their:.2f} | {their / own:.1f} |")


if __name__ == "__main__":
    main()
