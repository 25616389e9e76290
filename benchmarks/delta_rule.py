"""The chunked delta rule beside its peers: forward and backward, one thread, float32.

    OMP_NUM_THREADS=1 python benchmarks/delta_rule.py [--rounds 9] [--times 1024 2048 4096]

Every round runs every form once, in turn, so that a drifting machine drifts for all of them alike. What is
counted is the processor time of the one thread. Medians and ratios of medians are printed, after a check that
all forms agree on outputs and gradients. The peers are fla's naive chunk form at its own chunk size and at
64, the chunked rule of transformers' Qwen3-Next with a gate of zero, and loops over single steps: fla's and
ours.
"""

import argparse
import inspect
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from rich.progress import track
from torch import Tensor

from mnemos.ops.delta_rule import delta_rule_chunked, delta_rule_loop, unit

Form = Callable[[], Tensor]
HEADS, SIZE = 4, 64
LOOP_ROUNDS = 2  # of the loops over single steps, which take so much longer


def forms(queries: Tensor, keys: Tensor, values: Tensor, strengths: Tensor) -> dict[str, Form]:
    """Each form as a function from nothing to outputs (batch, time, heads, size)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fla warns that there is no accelerator
        from fla.ops.delta_rule.naive import delta_rule_chunkwise, delta_rule_recurrence
        from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    gated = inspect.unwrap(torch_chunk_gated_delta_rule)  # without the detour to an accelerator's kernel
    start = keys.new_zeros(1, HEADS, SIZE, SIZE)
    gate = torch.zeros_like(strengths)
    written, erased = strengths.unsqueeze(-1) * values, strengths.unsqueeze(-1) * keys

    def fla(form: Callable[..., tuple[Tensor, Tensor]], **options: int) -> Form:
        # Heads before time, and queries scaled by the root of their size.
        return lambda: form(
            *(x.transpose(1, 2) for x in (queries * SIZE**0.5, keys, values, strengths)), **options
        )[0].transpose(1, 2)

    def ours(chunk_size: int) -> Form:
        return lambda: delta_rule_chunked(queries, keys, written, erased, start, chunk_size=chunk_size)[0]

    return {
        "mnemos, chunks of 32": ours(32),
        "mnemos, chunks of 64": ours(64),
        "fla naive, chunks of 64": fla(delta_rule_chunkwise, chunk_size=64),
        "fla naive, chunks of 32": fla(delta_rule_chunkwise, chunk_size=32),
        "transformers, chunks of 64": lambda: gated(
            queries * SIZE**0.5, keys, values, gate, strengths, chunk_size=64
        )[0],
        "mnemos, loop": lambda: delta_rule_loop(*parts, start)[0],
        "fla, loop": fla(delta_rule_recurrence),
    }


def problem(length: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shape = (1, length, HEADS, SIZE)
    queries, keys, values = (torch.randn(shape, generator=generator) for _ in range(3))
    strengths = torch.rand(shape[:3], generator=generator)
    return [x.requires_grad_() for x in (unit(queries), unit(keys), values, strengths)]


def greatest_differences(inputs: list[Tensor], candidates: dict[str, Form]) -> dict[str, tuple[float, float]]:
    """By form, how far outputs and gradients are from those of our loop at most."""
    probe = torch.randn_like(inputs[2])
    expected = delta_rule_loop(*inputs, torch.zeros(1, HEADS, SIZE, SIZE))[0]
    slopes = torch.autograd.grad(expected, inputs, probe)
    differences = {}
    for name, form in candidates.items():
        outputs = form()
        pairs = zip(torch.autograd.grad(outputs, inputs, probe), slopes, strict=True)
        differences[name] = (
            (outputs - expected).abs().max().item(),
            max((a - b).abs().max().item() for a, b in pairs),
        )
    return differences


def milliseconds(inputs: list[Tensor], candidates: dict[str, Form], rounds: int) -> dict[str, list[float]]:
    """Forward and backward of every form, round after round; the first round does not count."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    probe = torch.randn_like(inputs[2])
    for number in track(range(rounds + 1), f"T = {inputs[0].shape[1]}"):
        for name, form in candidates.items():
            if name.endswith("loop") and number > LOOP_ROUNDS:
                continue
            start = time.process_time()
            torch.autograd.grad(form(), inputs, probe)
            if number:
                taken[name].append(1e3 * (time.process_time() - start))
    return taken


def table(results: dict[int, dict[str, list[float]]]) -> str:
    """Median milliseconds, and in brackets how many times as long as ours with chunks of 32."""
    times = list(results)
    rows = [
        "| form | " + " | ".join(f"T = {length}" for length in times) + " |",
        "|---" * (len(times) + 1) + "|",
    ]
    for name in results[times[0]]:
        cells = []
        for length in times:
            own, base = (statistics.median(results[length][form]) for form in (name, "mnemos, chunks of 32"))
            cells.append(f"{own:.1f} ({own / base:.2f})")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, nargs="+", default=[1024, 2048, 4096])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = problem(256)
    print("Greatest difference from the loop at T = 256 (outputs, gradients):")
    for name, (outputs, gradients) in greatest_differences(small, forms(*small)).items():
        assert max(outputs, gradients) < 1e-4, f"{name} does not compute the same"
        print(f"  {name}: {outputs:.1e}, {gradients:.1e}")
    results = {}
    for length in arguments.times:
        inputs = problem(length)
        results[length] = milliseconds(inputs, forms(*inputs), arguments.rounds)
    print(
        f"\nForward and backward, batch 1, {HEADS} heads of {SIZE}, median of {arguments.rounds} rounds "
        f"(loops: {LOOP_ROUNDS}):\n"
    )
    print(table(results))
    spread = max(max(taken) / min(taken) for by in results.values() for taken in by.values())
    ours = [statistics.median(by["mnemos, chunks of 32"]) for by in results.values()]
    growth = ", ".join(
        f"T x {length / arguments.times[0]:g}: time x {own / ours[0]:.2f}"
        for length, own in zip(arguments.times, ours, strict=True)
    )
    print(f"\nGrowth of mnemos, chunks of 32: {growth}")
    print(f"Slowest round over fastest, at worst: {spread:.2f}")


if __name__ == "__main__":
    main()
