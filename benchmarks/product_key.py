"""Product-key memory beside product-key-memory 0.3.0: a training step, one thread, float32.

    OMP_NUM_THREADS=1 python benchmarks/product_key.py [--rounds 5] [--sides 256 512 1024]

A step is forward, backward and the optimisers' step for 512 inputs of width 256, with 4 heads that read 32
slots each by keys of 2 x 128 numbers. The peer's table gets a dense gradient and torch's Adam, as its README
has it, and once more torch's fused Adam, which is the best that can be done for it. Every round runs every
form once, in turn, so that a drifting machine drifts for all of them alike. What is counted is the processor
time of the one thread. Medians are printed, and in brackets how many times as long as ours.

Both read the same number of slots. They normalise queries and keys differently, so what they compute differs.
"""

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from rich.progress import track
from torch import Tensor, nn

from mnemos.memories import ProductKey
from mnemos.sparse_optimizer import SparseOptimizer
from mnemos.stores.row_optimizer import adam

WIDTH, INPUTS, HEADS, TOP_K, HALF = 256, 512, 4, 32, 128
PARTS = ("forward", "backward", "step")
Form = Callable[[], tuple[float, float, float]]


def timed(model: nn.Module, read: Callable[[], Tensor], optimizers: list[torch.optim.Optimizer]) -> Form:
    """One step of training; the milliseconds of its three parts."""

    def step() -> tuple[float, float, float]:
        moments = [time.process_time()]
        loss = read().square().mean()
        moments.append(time.process_time())
        model.zero_grad()
        loss.backward()
        moments.append(time.process_time())
        for optimizer in optimizers:
            optimizer.step()
        moments.append(time.process_time())
        forward, backward, moved = (1e3 * (end - start) for start, end in itertools.pairwise(moments))
        return forward, backward, moved

    return step


def forms(side: int) -> dict[str, Form]:
    """Ours, and the peer's with either Adam; the table has side² rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from product_key_memory import PKM, fetch_optimizer_parameters

    inputs = torch.randn(1, INPUTS, WIDTH)
    ours = ProductKey(WIDTH, side, WIDTH, heads=HEADS, top_k=TOP_K, key_size=2 * HALF, count_usage=False)
    rows = ours.values.get_parameter("rows")
    rest = [parameter for parameter in ours.parameters() if parameter is not rows]
    optimizers = [SparseOptimizer([rows], adam, lr=1e-2), torch.optim.Adam(rest, lr=1e-3)]
    found = {"mnemos": timed(ours, lambda: ours(inputs)[0], optimizers)}
    peer = PKM(WIDTH, heads=HEADS, num_keys=side, topk=TOP_K, dim_head=HALF)
    for name, fused in (("product-key-memory, Adam", False), ("product-key-memory, fused Adam", True)):
        optimizer = torch.optim.Adam(fetch_optimizer_parameters(peer), lr=1e-3, fused=fused)
        found[name] = timed(peer, lambda: peer(inputs), [optimizer])
    return found


def measured(side: int, rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """Every form round after round; the first round does not count, since it allocates what stays."""
    candidates = forms(side)
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in candidates}
    for number in track(range(rounds + 1), f"{side}²"):
        for name, form in candidates.items():
            parts = form()
            if number:
                taken[name].append(parts)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512, 1024])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    totals: dict[int, float] = {}
    lines = [f"| slots | form | {' | '.join(PARTS)} | in all |", "|---" * (len(PARTS) + 3) + "|"]
    for side in arguments.sides:
        for name, taken in measured(side, arguments.rounds).items():
            medians = [statistics.median(part) for part in zip(*taken, strict=True)]
            total = statistics.median(map(sum, taken))
            base = totals.setdefault(side, total)
            parts = " | ".join(f"{part:.1f}" for part in medians)
            lines.append(f"| {side}² | {name} | {parts} | {total:.1f} ({total / base:.2f}) |")
    print(f"\nMilliseconds, median of {arguments.rounds} rounds:\n")
    print("\n".join(lines))
    growth = ", ".join(f"{side}²: {total / totals[arguments.sides[0]]:.2f}" for side, total in totals.items())
    print(f"\nGrowth of mnemos with the number of slots: {growth}")


if __name__ == "__main__":
    main()
