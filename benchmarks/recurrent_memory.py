"""The DNC beside `dnc` 1.1.0: forward and backward, one thread, float32, and the most memory that it takes.

    OMP_NUM_THREADS=1 python benchmarks/recurrent_memory.py [--rounds 5] [--times 20 100] [--compiled]

Both have an LSTM of 64 units as controller, 4 read heads, one write head, 16 inputs and outputs, and 16 rows.
What is counted is the processor time of one thread, every form once in a round, in turn. The naive form is
ours with autograd through every equation. With `--compiled` there are also blocks of ten of our steps
(`CompiledBlocks`), which take minutes to compile; that is not counted. Memory is the greatest
resident size of a process of its own that does one step of training, above what it had before. At the end:
how many steps a second the study of the Neural Turing Machine trains.
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

import torch
from rich.progress import track
from torch import Tensor, nn

from mnemos.memories import DNC, NTM, Recurrent
from mnemos.models.compiled_blocks import CompiledBlocks
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.studies.algorithms import teach, with_controller
from mnemos.studies.ntm import SHORT

BATCH, INPUTS, HIDDEN, HEADS, BLOCK = 16, 16, 64, 4, 10
SIZES = ((16, 16), (64, 32), (256, 64))
OURS, PEER = "mnemos", "dnc 1.1.0"
Form = Callable[[Tensor], Tensor]


def ours(slots: int, width: int, *, naive: bool = False, compiled: bool = False) -> Form:
    memory = DNC(HIDDEN, slots, width, HEADS)
    memory.naive = naive
    network = MemoryAugmented(Recurrent(INPUTS + HEADS * width, HIDDEN), memory, INPUTS)
    run = CompiledBlocks(network, BLOCK, options={"cpp_wrapper": True}) if compiled else network
    return lambda inputs: run(inputs)[0]


def peer(slots: int, width: int) -> Form:
    import dnc

    network: nn.Module = dnc.DNC(
        INPUTS, HIDDEN, nr_cells=slots, cell_size=width, read_heads=HEADS, num_hidden_layers=1, clip=0
    )
    return lambda inputs: network(inputs, (None, None, None), reset_experience=True)[0]


FORMS: dict[str, Callable[[int, int], Form]] = {
    OURS: ours,
    "mnemos, naive": lambda slots, width: ours(slots, width, naive=True),
    "mnemos, compiled": lambda slots, width: ours(slots, width, compiled=True),
    PEER: peer,
}


def train(form: Form, inputs: Tensor) -> None:
    form(inputs).square().sum().backward()


def milliseconds(forms: dict[str, Form], inputs: Tensor, rounds: int, what: str) -> dict[str, list[float]]:
    """Forward and backward, by form, for one step of the sequence."""
    taken: dict[str, list[float]] = {name: [] for name in forms}
    for number in track(range(rounds + 1), what):
        for name, form in forms.items():
            gc.collect()
            start = time.process_time()
            train(form, inputs)
            if number:  # the first round does not count
                taken[name].append(1e3 * (time.process_time() - start) / inputs.shape[1])
    return taken


def megabytes(name: str, slots: int, width: int, steps: int) -> float:
    """What a process of its own needs for forward and backward, above what it had before."""
    arguments = [name, *map(str, (slots, width, steps))]
    command = [sys.executable, __file__, "--alone", *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def alone(name: str, slots: int, width: int, steps: int) -> None:
    torch.set_num_threads(1)
    form = FORMS[name](slots, width)
    train(form, torch.randn(BATCH, 1, INPUTS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train(form, torch.randn(BATCH, steps, INPUTS))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def copying(steps: int = 200) -> float:
    """Training steps a second of the Neural Turing Machine that its study teaches to copy."""
    memory = NTM(SHORT.hidden_size, SHORT.slots, SHORT.width)
    network = with_controller(SHORT.task, memory)
    start = time.process_time()
    teach(network, SHORT.task, steps, learning_rate=1e-2, seed=0, advance=lambda *_: None)
    return steps / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.alone:
        name, *sizes = arguments.alone
        alone(name, *map(int, sizes))
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    slots, width = SIZES[-1]  # first of all: a child's greatest size begins with its parent's
    needed = {name: megabytes(name, slots, width, 100) for name in (OURS, "mnemos, naive", PEER)}
    print(
        f"Megabytes for forward and backward, 100 steps at {slots} x {width}, and the share of the peer's:\n"
    )
    for name, most in needed.items():
        print(f"- {name}: {most:.0f} ({most / needed[PEER]:.2f})")
    names = [name for name in FORMS if arguments.compiled or "compiled" not in name]
    print(
        f"\nMilliseconds a step, forward and backward, median of {arguments.rounds} rounds, and in brackets"
    )
    print("how many times as fast as the peer:\n")
    print("| slots x width | steps | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 2) + "|")
    spread = 1.0
    for slots, width in SIZES:
        forms = {name: FORMS[name](slots, width) for name in names}
        for steps in arguments.times:
            inputs = torch.randn(BATCH, steps, INPUTS)
            taken = milliseconds(forms, inputs, arguments.rounds, f"{slots} x {width}, {steps} steps")
            spread = max(spread, *(max(of) / min(of) for of in taken.values()))
            medians = {name: statistics.median(of) for name, of in taken.items()}
            cells = [f"{medians[name]:.2f} ({medians[PEER] / medians[name]:.2f})" for name in names]
            print(f"| {slots} x {width} | {steps} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nSlowest round over fastest, at worst: {spread:.2f}")
    copying(20)  # the first step of an optimizer imports a compiler
    print(f"\nThe NTM of `mnemos study ntm`: {copying():.1f} training steps a second")


if __name__ == "__main__":
    main()
