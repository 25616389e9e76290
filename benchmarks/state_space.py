"""Two Mamba layers beside `mambapy` 1.2.0: forward and backward, one thread, float32, and the most memory.

    OMP_NUM_THREADS=1 python benchmarks/state_space.py [--rounds 5] [--times 1024 2048]

Width 256, twice as many channels inside, 16 states in each, one row. Both have the same weights, and are
checked to give the same outputs and gradients. What is counted is the processor time of one thread, every
form once in a round, in turn; our loop over single steps in the first two rounds only. Memory is the greatest
resident size of a process of its own that does one step of training, above what it had before.
"""

import argparse
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories import SelectiveStateSpace, ShortConvolution

WIDTH, CHANNELS, STATES, LAYERS = 256, 512, 16, 2
LOOP_ROUNDS = 2
OURS, LOOP, PEER = "mnemos", "mnemos, loop", "mambapy"
Form = Callable[[Tensor], Tensor]


class MambaLayer(nn.Module):
    """Gu & Dao 2023, figure 3."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)
        self.input = nn.Linear(WIDTH, 2 * CHANNELS, bias=False)
        self.convolution, self.memory = ShortConvolution(CHANNELS), SelectiveStateSpace(CHANNELS, STATES)
        self.output = nn.Linear(CHANNELS, WIDTH, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, gate = self.input(self.norm(inputs)).chunk(2, dim=2)
        hidden, _ = self.convolution(hidden)
        read, _ = self.memory(functional.silu(hidden))
        return inputs + self.output(read * functional.silu(gate))


def ours(naive: bool) -> tuple[nn.Sequential, Form]:
    layers = nn.Sequential(*(MambaLayer() for _ in range(LAYERS)))
    for layer in layers:
        layer.memory.naive = naive
    return layers, layers


def peer() -> tuple[nn.ModuleList, Form]:
    from mambapy.mamba import Mamba, MambaConfig

    network = Mamba(MambaConfig(WIDTH, LAYERS, d_state=STATES))
    return network.layers, network


def give(layer: MambaLayer, peers: nn.Module) -> None:
    """Our layer gets the weights of the peer's."""
    mixer, memory, convolution = peers.mixer, layer.memory, layer.convolution
    layer.norm.eps = peers.norm.eps
    for own, given in (
        (layer.norm.weight, peers.norm.weight),
        (layer.input.weight, mixer.in_proj.weight),
        (convolution.taps, mixer.conv1d.weight.squeeze(1).flip(1).T),
        (convolution.bias, mixer.conv1d.bias),
        (memory.chosen.weight, mixer.x_proj.weight),
        (memory.step.weight, mixer.dt_proj.weight),
        (memory.step.bias, mixer.dt_proj.bias),
        (memory.log_rates, mixer.A_log),
        (memory.skip, mixer.D),
        (layer.output.weight, mixer.out_proj.weight),
    ):
        own.data.copy_(given.data)


def forms() -> dict[str, Form]:
    torch.manual_seed(0)
    made = {OURS: ours(naive=False), PEER: peer(), LOOP: ours(naive=True)}
    for name in (OURS, LOOP):
        for layer, given in zip(made[name][0], made[PEER][0], strict=True):
            give(layer, given)
    return {name: run for name, (_, run) in made.items()}


def check_same(candidates: dict[str, Form]) -> None:
    """Prints how far outputs and gradients are from those of our loop, and refuses a difference."""
    inputs = torch.randn(1, 256, WIDTH, requires_grad=True)
    probe = torch.randn(1, 256, WIDTH)
    found = {}
    for name, form in candidates.items():
        outputs = form(inputs)
        found[name] = outputs.detach(), torch.autograd.grad(outputs, inputs, probe)[0]
    print("Greatest difference from our loop at T = 256 (outputs, gradients):")
    for name, both in found.items():
        apart = [(x - y).abs().max().item() for x, y in zip(both, found[LOOP], strict=True)]
        assert max(apart) < 1e-3, f"{name} does not compute the same: {apart}"
        print(f"  {name}: {apart[0]:.1e}, {apart[1]:.1e}")


def milliseconds(
    candidates: dict[str, Form], length: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Forward alone without gradients, and forward with backward; the first round does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    inputs = torch.randn(1, length, WIDTH, requires_grad=True)
    for number in track(range(rounds + 1), f"T = {length}"):
        for name, form in candidates.items():
            if name == LOOP and number > LOOP_ROUNDS:
                continue
            gc.collect()
            start = time.process_time()
            with torch.no_grad():
                form(inputs)
            between = time.process_time()
            form(inputs).square().sum().backward()
            if number:
                taken[name].append((1e3 * (between - start), 1e3 * (time.process_time() - between)))
    return taken


def megabytes(name: str, length: int) -> float:
    command = [sys.executable, __file__, "--alone", name, str(length)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def alone(name: str, length: int) -> None:
    form = forms()[name]
    form(torch.randn(1, 64, WIDTH)).sum().backward()
    inputs = torch.randn(1, length, WIDTH)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the greatest size is from here on
    before = greatest_kilobytes()
    form(inputs).square().sum().backward()
    print((greatest_kilobytes() - before) / 1024)


def greatest_kilobytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.alone:
        alone(arguments.alone[0], int(arguments.alone[1]))
        return
    candidates = forms()
    check_same(candidates)
    rows = ["| T | form | forward | forward and backward | MB |", "|---|---|---|---|---|"]
    for length in arguments.times:
        taken = milliseconds(candidates, length, arguments.rounds)
        medians = {name: [statistics.median(x) for x in zip(*by, strict=True)] for name, by in taken.items()}
        for name, own in medians.items():
            cells = [f"{x:.0f} ({x / base:.2f})" for x, base in zip(own, medians[OURS], strict=True)]
            rows.append(f"| {length} | {name} | {cells[0]} | {cells[1]} | {megabytes(name, length):.0f} |")
    print(f"\nMilliseconds, median of {arguments.rounds} rounds, times ours in brackets:\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
