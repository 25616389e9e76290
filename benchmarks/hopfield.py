"""The continuous Hopfield update beside torch's attention: one thread, float32.

    OMP_NUM_THREADS=1 python benchmarks/hopfield.py [--rounds 9] [--length 2048] [--width 256]

Every round runs every form once, in turn, so that a drifting machine drifts for all of them alike. What is
counted is the processor time of the one thread. Medians and ratios of medians are printed, after a check that
one update is attention. The last two forms answer with the weights as well, which the fused kernel never has:
that is what a memory's `read` gives.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.progress import track
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mnemos import ModernHopfield
from mnemos.ops.hopfield import retrieve

Form = Callable[[], Tensor]
PEER = "torch, scaled_dot_product_attention"
UPDATES = (1, 2, 4)


def forms(queries: Tensor, keys: Tensor, values: Tensor) -> dict[str, Form]:
    """Each form as a function from nothing to what was found, (batch, heads, time, width)."""
    width = keys.shape[-1]
    parts = (queries, keys, values)

    def ours(steps: int) -> Form:
        return lambda: retrieve(*parts, width**-0.5, steps)

    def plain() -> Tensor:
        return torch.softmax(queries @ keys.mT * width**-0.5, dim=-1) @ values

    memory = ModernHopfield(width, keys.shape[-2])
    state = memory.initial_state(1)

    def read() -> Tensor:
        full = state._replace(keys=keys[:, 0], values=values[:, 0], clock=state.clock + memory.slots)
        return memory.read(full, queries[:, 0]).values.unsqueeze(1)

    return {
        PEER: lambda: scaled_dot_product_attention(*parts),
        **{f"mnemos, {steps} update{'s' * (steps > 1)}": ours(steps) for steps in UPDATES},
        "torch, softmax between two products": plain,
        "mnemos, ModernHopfield.read": read,
    }


def problem(length: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(1, 1, length, width, generator=generator).requires_grad_() for _ in range(3)]


def milliseconds(
    inputs: list[Tensor], candidates: dict[str, Form], rounds: int, backward: bool
) -> dict[str, list[float]]:
    """Every form, round after round, with its backward or without; the first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    probe = torch.randn_like(inputs[2])
    for number in track(range(rounds + 1), "forward and backward" if backward else "forward"):
        for name, form in candidates.items():
            start = time.process_time()
            if backward:
                torch.autograd.grad(form(), inputs, probe)
            else:
                with torch.no_grad():
                    form()
            if number:
                taken[name].append(1e3 * (time.process_time() - start))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--width", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs = problem(arguments.length, arguments.width)
    candidates = forms(*inputs)
    with torch.no_grad():
        expected = candidates[PEER]()
        for name, form in candidates.items():
            if "updates" in name:
                continue
            difference = (form() - expected).abs().max().item()
            assert difference < 1e-6, f"{name} does not compute the same"
            print(f"Greatest difference from attention, {name}: {difference:.1e}")
    results = [milliseconds(inputs, candidates, arguments.rounds, backward) for backward in (False, True)]
    medians = [{name: statistics.median(taken) for name, taken in by.items()} for by in results]
    print(
        f"\n{arguments.length} queries, {arguments.length} patterns of {arguments.width}, milliseconds, "
        f"median of {arguments.rounds} rounds, in brackets relative to attention:\n"
    )
    print("| form | forward | forward and backward |\n|---|---|---|")
    for name in candidates:
        cells = [f"{by[name]:.1f} ({by[name] / by[PEER]:.2f})" for by in medians]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for by, what in zip(medians, ("forward", "forward and backward"), strict=True):
        first, last = by["mnemos, 1 update"], by[f"mnemos, {UPDATES[-1]} updates"]
        further = (last - first) / (UPDATES[-1] - 1)
        print(f"\nA further update, {what}: {further:.1f} ms, {further / first:.2f} of the first")
    spread = max(max(taken) / min(taken) for by in results for taken in by.values())
    print(f"\nSlowest round over fastest, at worst: {spread:.2f}")


if __name__ == "__main__":
    main()
