"""What Atlas and the continuum memory cost beside Titans: time and what is kept for the backward, float32.

    OMP_NUM_THREADS=1 python benchmarks/atlas.py [--rounds 3] [--size 32] [--steps 128]

Two heads, networks of two layers and four times the width of a key, chunks of 16 steps (the periods of the
continuum memory are 4, 16 and 64), batch 1. What is counted is the processor time of one thread, every form
once in a round, in turn; and the bytes of the distinct tensors that autograd keeps for the backward.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mnemos.memories import Atlas, ContinuumMemory, Titans
from mnemos.memories.base import Memory


def forms(size: int) -> dict[str, Memory]:
    common: dict[str, Any] = {"heads": 2, "key_size": size}
    return {
        "Titans": Titans(2 * size, value_size=size, **common),
        "Atlas, degree 1, no Newton-Schulz": Atlas(
            2 * size, value_size=size, degree=1, newton_schulz_steps=0, **common
        ),
        "Atlas, degree 1": Atlas(2 * size, value_size=size, degree=1, **common),
        "Atlas, degree 2, no Newton-Schulz": Atlas(
            2 * size, value_size=size, newton_schulz_steps=0, **common
        ),
        "Atlas, degree 2": Atlas(2 * size, value_size=size, **common),
        "ContinuumMemory": ContinuumMemory(2 * size, **common),
    }


def megabytes(memory: Memory, inputs: Tensor) -> float:
    """What autograd keeps of a forward."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        _outputs = memory(inputs)  # alive while it is counted, or an address might be counted once for two
    return sum(kept.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    memories = forms(arguments.size)
    inputs = torch.randn(1, arguments.steps, 2 * arguments.size)
    times: dict[str, list[float]] = {name: [] for name in memories}
    for number in track(range(arguments.rounds + 1), "rounds"):
        for name, memory in memories.items():
            start = time.process_time()
            memory(inputs)[0].square().sum().backward()
            if number:
                times[name].append(1e3 * (time.process_time() - start))
    print(
        "| memory | forward and backward, ms | times Titans' | kept for the backward, MB |\n"
        + "|---" * 4
        + "|"
    )
    first = statistics.median(times["Titans"])
    for name, memory in memories.items():
        median = statistics.median(times[name])
        print(f"| {name} | {median:.0f} | {median / first:.1f} | {megabytes(memory, inputs):.0f} |")


if __name__ == "__main__":
    main()
