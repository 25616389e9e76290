"""Titans' memory beside titans-pytorch 0.5.5: time, memory and streaming, one thread, float32.

    OMP_NUM_THREADS=1 python benchmarks/test_time_memory.py [--rounds 3] [--sizes 256 384] [--times 1024]

Both are one head, an MLP of two layers and four times the width, momentum and decay from the input, batch 1.
They do not compute the same: within a chunk every step of ours has its own momentum, decay and read, those of
the peer are shared by the chunk; the peer has a norm before its projections and one, with a residual, in the
memory, and ours one projection more, at its output. What is counted is the processor time of one thread,
every form once in a round, in turn. Memory is the greatest resident size of a process of its own that does
one step of training, above what it had before. Streaming is one step per call without gradients.
"""

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from mnemos.memories import Titans

OURS, PEER = "mnemos", "titans-pytorch 0.5.5"
Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
STREAMED = 256


def form(name: str, size: int, chunk_size: int) -> Step:
    if name == OURS:
        return Titans(size, key_size=size, value_size=size, depth=2, expansion=4, chunk_size=chunk_size)
    from titans_pytorch import NeuralMemory

    memory = NeuralMemory(size, chunk_size=chunk_size)
    return lambda inputs, state: memory(inputs, state=state)


def train(step: Step, inputs: Tensor) -> None:
    step(inputs, None)[0].square().sum().backward()


def milliseconds(forms: dict[str, Step], inputs: Tensor, rounds: int, what: str) -> dict[str, list[float]]:
    """Forward alone and with backward, by form, the medians of all rounds but the first."""
    forward: dict[str, list[float]] = {name: [] for name in forms}
    both: dict[str, list[float]] = {name: [] for name in forms}
    for number in track(range(rounds + 1), what):
        for name, step in forms.items():
            gc.collect()
            start = time.process_time()
            with torch.no_grad():
                step(inputs, None)
            middle = time.process_time()
            train(step, inputs)
            if number:
                forward[name].append(1e3 * (middle - start))
                both[name].append(1e3 * (time.process_time() - middle))
    return {name: [statistics.median(forward[name]), statistics.median(both[name])] for name in forms}


@torch.no_grad()
def streaming(step: Step, size: int) -> float:
    """Milliseconds a step, one step a call, after as many to warm up."""
    state = None
    for number in range(2 * STREAMED):
        if number == STREAMED:
            start = time.process_time()
        _, state = step(torch.randn(1, 1, size), state)
    return 1e3 * (time.process_time() - start) / STREAMED


def megabytes(name: str, size: int, chunk_size: int, length: int) -> float:
    """What a process of its own needs for forward and backward, above what it had before."""
    arguments = [name, *map(str, (size, chunk_size, length))]
    command = [sys.executable, __file__, "--alone", *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def alone(name: str, size: int, chunk_size: int, length: int) -> None:
    step = form(name, size, chunk_size)
    train(step, torch.randn(1, chunk_size, size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train(step, torch.randn(1, length, size))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384])
    parser.add_argument("--chunks", type=int, nargs="+", default=[64, 16])
    parser.add_argument("--times", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.alone:
        name, *sizes = arguments.alone
        alone(name, *map(int, sizes))
        return
    # First of all: a child's greatest size begins with its parent's.
    most = {
        (size, chunk_size, length): [megabytes(name, size, chunk_size, length) for name in (OURS, PEER)]
        for size in arguments.sizes
        for chunk_size in arguments.chunks
        for length in arguments.times
    }
    print("Milliseconds (ours, peer, how many times as fast), medians of", arguments.rounds, "rounds;")
    print("megabytes of forward and backward (ours, peer, share); milliseconds a step, one step a call:\n")
    print("| width | chunk | steps | forward | forward and backward | megabytes | streaming |")
    print("|---" * 7 + "|", flush=True)
    for size in arguments.sizes:
        for chunk_size in arguments.chunks:
            forms = {name: form(name, size, chunk_size) for name in (OURS, PEER)}
            streamed = [streaming(step, size) for step in forms.values()]
            for length in arguments.times:
                what = f"{size} wide, chunks of {chunk_size}, {length} steps"
                taken = milliseconds(forms, torch.randn(1, length, size), arguments.rounds, what)
                cells = [
                    f"{taken[OURS][i]:.0f}, {taken[PEER][i]:.0f}, {taken[PEER][i] / taken[OURS][i]:.1f}"
                    for i in (0, 1)
                ]
                needed = most[size, chunk_size, length]
                cells.append(f"{needed[0]:.0f}, {needed[1]:.0f}, {needed[0] / needed[1]:.2f}")
                cells.append(f"{streamed[0]:.2f}, {streamed[1]:.2f}, {streamed[1] / streamed[0]:.1f}")
                print(f"| {size} | {chunk_size} | {length} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
