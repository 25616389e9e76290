"""The chunked delta rule, in all its kinds, beside its peers: forward and backward, one thread, float32.

    OMP_NUM_THREADS=1 python benchmarks/delta_rule.py [--rounds 9] [--times 1024 4096] [--kinds plain gated]

Every round runs every form of a kind once, in turn, so that a drifting machine drifts for all of them alike.
What is counted is the processor time of the one thread. Medians and ratios of medians are printed, after a
check that all forms agree on outputs and gradients. The peers are fla's naive chunk forms, the chunked rule
of transformers' Qwen3-Next, and for the plain rule loops over single steps: fla's and ours.
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
OURS = "mnemos, chunks of 32"
KINDS = {
    "plain": "the delta rule",
    "gated": "the gated delta rule",
    "by-channel": "Kimi delta attention",
    "apart": "gated delta rule 2",
    "linear": "linear attention",
}


class Problem:
    """What all forms of a kind are given. Queries come to the peers times 8, which they divide by."""

    def __init__(self, kind: str, length: int) -> None:
        generator = torch.Generator().manual_seed(length)
        shape = (1, length, HEADS, SIZE)
        queries, keys, values = (torch.randn(shape, generator=generator) for _ in range(3))
        self.kind = kind
        self.queries, self.keys, self.values = unit(queries), unit(keys), values
        self.strengths = torch.rand(shape[:3], generator=generator)
        channels = {"gated": 1, "by-channel": SIZE, "apart": SIZE}.get(kind, 0)
        # As a layer begins: most channels keep for tens of steps.
        self.log_decay = -torch.rand(*shape[:3], channels, generator=generator).square() / 2
        gates = SIZE if kind == "apart" else 0
        self.erased, self.committed = (torch.rand(*shape[:3], gates, generator=generator) for _ in range(2))
        self.leaves = [
            leaf.requires_grad_()
            for leaf in (
                self.queries,
                self.keys,
                self.values,
                *([] if kind in ("apart", "linear") else [self.strengths]),
                *([self.log_decay] if channels else []),
                *([self.erased, self.committed] if gates else []),
            )
        ]

    def ours(self, form: Callable[..., tuple[Tensor, Tensor]], **options: int) -> Tensor:
        start = self.keys.new_zeros(1, HEADS, SIZE, SIZE)
        strengths = self.strengths.unsqueeze(-1)
        written: Tensor = self.values
        erased: Tensor | None = None
        if self.kind == "apart":
            written, erased = self.committed * self.values, self.erased * self.keys
        elif self.kind != "linear":
            written, erased = strengths * self.values, strengths * self.keys
        log_decay = self.log_decay if self.log_decay.numel() else None
        return form(self.queries, self.keys, written, erased, start, log_decay=log_decay, **options)[0]

    def forms(self) -> dict[str, Form]:
        """Each form as a function from nothing to outputs (batch, time, heads, size)."""
        ours: dict[str, Form] = {
            OURS: lambda: self.ours(delta_rule_chunked, chunk_size=32),
            "mnemos, chunks of 64": lambda: self.ours(delta_rule_chunked, chunk_size=64),
        }
        loops: dict[str, Form] = {"mnemos, loop": lambda: self.ours(delta_rule_loop)}
        return (
            ours
            | getattr(self, f"_{self.kind.replace('-', '_')}")()
            | (loops if self.kind == "plain" else {})
        )

    def _plain(self) -> dict[str, Form]:
        from fla.ops.delta_rule.naive import delta_rule_chunkwise, delta_rule_recurrence

        def fla(form: Callable[..., tuple[Tensor, Tensor]], **options: int) -> Form:
            rest = (self.keys, self.values, self.strengths)
            return lambda: form(  # heads before time
                *(x.transpose(1, 2) for x in (self.queries * SIZE**0.5, *rest)), **options
            )[0].transpose(1, 2)

        gate = torch.zeros_like(self.strengths)
        return {
            "fla naive, chunks of 64": fla(delta_rule_chunkwise, chunk_size=64),
            "fla naive, chunks of 32": fla(delta_rule_chunkwise, chunk_size=32),
            "transformers, chunks of 64": lambda: self._transformers(gate),
            "fla, loop": fla(delta_rule_recurrence),
        }

    def _gated(self) -> dict[str, Form]:
        from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule

        gate = self.log_decay.squeeze(-1)
        parts = (self.queries, self.keys, self.values, gate, self.strengths)
        return {
            "fla naive, chunks of 64": lambda: naive_chunk_gated_delta_rule(*parts, scale=1.0)[0],
            "transformers, chunks of 64": lambda: self._transformers(gate),
        }

    def _by_channel(self) -> dict[str, Form]:
        from fla.ops.kda.naive import naive_chunk_kda

        parts = (self.queries, self.keys, self.values, self.log_decay, self.strengths)
        return {"fla naive, chunks of 64": lambda: naive_chunk_kda(*parts, scale=1.0)[0]}

    def _apart(self) -> dict[str, Form]:
        from fla.ops.gdn2.naive import naive_chunk_gdn2

        parts = (self.queries, self.keys, self.values, self.log_decay, self.erased, self.committed)
        return {"fla naive, chunks of 64": lambda: naive_chunk_gdn2(*parts, scale=1.0)[0]}

    def _linear(self) -> dict[str, Form]:
        from fla.ops.linear_attn.naive import naive_chunk_linear_attn

        parts = (self.queries, self.keys, self.values)
        return {
            "fla naive, chunks of 64": lambda: naive_chunk_linear_attn(*parts, scale=1.0, normalize=False)
        }

    def _transformers(self, gate: Tensor) -> Tensor:
        from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

        form = inspect.unwrap(torch_chunk_gated_delta_rule)  # without the detour to an accelerator's kernel
        parts = (self.queries * SIZE**0.5, self.keys, self.values, gate, self.strengths)
        return form(*parts, chunk_size=64)[0]


def greatest_differences(problem: Problem) -> dict[str, tuple[float, float]]:
    """By form, how far outputs and gradients are from those of our loop at most."""
    probe = torch.randn_like(problem.values)
    expected = problem.ours(delta_rule_loop)
    slopes = torch.autograd.grad(expected, problem.leaves, probe)
    differences = {}
    for name, form in problem.forms().items():
        outputs = form()
        pairs = zip(torch.autograd.grad(outputs, problem.leaves, probe), slopes, strict=True)
        differences[name] = (
            (outputs - expected).abs().max().item(),
            max((a - b).abs().max().item() for a, b in pairs),
        )
    return differences


def milliseconds(problem: Problem, rounds: int, only: str = "") -> dict[str, list[float]]:
    """Forward and backward of every form named so, round after round; the first round does not count."""
    forms = {name: form for name, form in problem.forms().items() if name.startswith(only)}
    taken: dict[str, list[float]] = {name: [] for name in forms}
    probe = torch.randn_like(problem.values)
    for number in track(range(rounds + 1), f"{problem.kind}, T = {probe.shape[1]}"):
        for name, form in forms.items():
            if name.endswith("loop") and number > LOOP_ROUNDS:
                continue
            start = time.process_time()
            torch.autograd.grad(form(), problem.leaves, probe)
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
            own, base = (statistics.median(results[length][form]) for form in (name, OURS))
            cells.append(f"{own:.1f} ({own / base:.2f})")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument(
        "--only", default="", help="only forms whose names begin so, such as 'mnemos, chunks'"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # fla warns that there is no accelerator
    for kind in arguments.kinds:
        print(f"\n{KINDS[kind].capitalize()}. Greatest difference from the loop at T = 256:\n")
        for name, (outputs, gradients) in greatest_differences(Problem(kind, 256)).items():
            assert max(outputs, gradients) < 1e-4, f"{name} does not compute the same: {outputs}, {gradients}"
            print(f"- {name}: outputs {outputs:.1e}, gradients {gradients:.1e}")
        results = {
            length: milliseconds(Problem(kind, length), arguments.rounds, arguments.only)
            for length in arguments.times
        }
        print(
            f"\nForward and backward, batch 1, {HEADS} heads of {SIZE}, median of {arguments.rounds} rounds "
            f"(loops: {LOOP_ROUNDS}):\n"
        )
        print(table(results))
        spread = max(max(taken) / min(taken) for by in results.values() for taken in by.values())
        ours = [statistics.median(by[OURS]) for by in results.values()]
        growth = ", ".join(
            f"T x {length / arguments.times[0]:g}: time x {own / ours[0]:.2f}"
            for length, own in zip(arguments.times, ours, strict=True)
        )
        print(f"\nGrowth of {OURS}: {growth}")
        print(f"Slowest round over fastest, at worst: {spread:.2f}")


if __name__ == "__main__":
    main()
