"""Product keys: exactly the best of all keys, facts by heart, all slots in use, and a cost that hardly grows.

Lample et al. 2019 replace feed-forward layers of a language model by a memory. Scaled down to what such a
layer is for: 20,000 facts with nothing in common, of which a feed-forward network that costs as much per fact
can keep only a few, since it has to pass through all its parameters for each. Usage and its divergence from
uniform are measured as in section 4 of the paper, on the facts themselves.
"""

import math
import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.product_key import ProductKey
from mnemos.ops.product_key import product_top_k
from mnemos.progress import Advance, between
from mnemos.sparse_optimizer import SparseOptimizer
from mnemos.stores.row_optimizer import adam
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.facts import Facts, random_facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

ANSWERS, SIZE = 16, 32  # of a fact, and the width of its key
HEADS, TOP_K, KEY_SIZE = 2, 16, 32
EPOCHS, BATCH = 20, 1000
SIDES = (128, 256, 512, 1024)  # half-keys: 16 thousand to a million slots


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    advance(0.0, "the best 32 of 512² keys against looking at all")
    measured: dict[str, Any] = {"top_k_equal": _top_k_equal(1000, 512, 32, generator)}
    measured |= _learn(full, generator, between(advance, 0.1, 0.8))
    advance(0.8, "a step, by the number of slots")
    milliseconds = _step_milliseconds(9)
    return {
        **measured,
        "step_milliseconds": milliseconds,
        "step_growth": milliseconds[SIDES[-1] ** 2] / milliseconds[SIDES[0] ** 2],
    }


def _top_k_equal(queries: int, half_keys: int, k: int, generator: torch.Generator) -> float:
    """The share of random queries that get the very slots, in the same order, that all n² scores give.

    In float64, where no two sums are equal and the order is therefore one.
    """
    keys = torch.randn(2, half_keys, 64, generator=generator, dtype=torch.float64)
    equal = 0
    for _ in range(queries // 50):
        asked = torch.randn(2, 50, 64, generator=generator, dtype=torch.float64)
        first, second = (asked @ keys.mT).unbind(0)
        scores, slots = product_top_k(first, second, k)
        best = (first.unsqueeze(2) + second.unsqueeze(1)).flatten(1).topk(k)
        equal += int(((slots == best.indices) & (scores == best.values)).all(1).sum())
    return equal / queries


def _learn(full: bool, generator: torch.Generator, advance: Advance) -> dict[str, Any]:
    """Facts by heart: a memory beside a feed-forward network of as many multiplications for each fact."""
    count, half_keys = (100_000, 256) if full else (20_000, 128)
    facts = random_facts(count, SIZE, ANSWERS, generator)
    memory = ProductKey(SIZE, half_keys, ANSWERS, heads=HEADS, top_k=TOP_K, key_size=KEY_SIZE)
    costs = SIZE * HEADS * KEY_SIZE + HEADS * half_keys * KEY_SIZE + HEADS * TOP_K * ANSWERS
    hidden = round(costs / (SIZE + ANSWERS))
    feed_forward = nn.Sequential(nn.Linear(SIZE, hidden), nn.GELU(), nn.Linear(hidden, ANSWERS))
    rows = memory.values.get_parameter("rows")
    rest = [parameter for parameter in memory.parameters() if parameter is not rows]
    optimizers: list[torch.optim.Optimizer] = [
        SparseOptimizer([rows], adam, lr=0.1),
        torch.optim.Adam(rest, lr=1e-3),
        torch.optim.Adam(feed_forward.parameters(), lr=3e-3),
    ]
    steps = EPOCHS * count // BATCH
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 - step / steps) for o in optimizers]
    curves: dict[str, list[float]] = {"memory": [], "feed_forward": []}
    for epoch in range(EPOCHS):
        advance(epoch / EPOCHS, f"{count} facts, epoch {epoch} of {EPOCHS}")
        for batch in torch.randperm(count, generator=generator).split(BATCH):
            keys, answers = facts.keys[batch], facts.answers[batch]
            for optimizer in optimizers:
                optimizer.zero_grad()
            logits = _answers(memory, keys), feed_forward(keys)
            torch.stack([functional.cross_entropy(x, answers) for x in logits]).sum().backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            curves["memory"].append(
                _right(torch.cat([_answers(memory, k) for k in facts.keys.split(BATCH)]), facts)
            )
            curves["feed_forward"].append(_right(feed_forward(facts.keys), facts))
    return {
        "facts": count,
        "slots": half_keys**2,
        "multiplications": {"memory": costs, "feed_forward": hidden * (SIZE + ANSWERS)},
        "accuracy": curves["memory"][-1],
        "feed_forward_accuracy": curves["feed_forward"][-1],
        "accuracy_by_epoch": curves,
        **_usage(memory, facts),
    }


def _answers(memory: ProductKey, keys: Tensor) -> Tensor:
    """Each fact is a step of one sequence; the value read is the logits."""
    return memory(keys.unsqueeze(0))[0].squeeze(0)


def _right(logits: Tensor, facts: Facts) -> float:
    return (logits.argmax(1) == facts.answers).double().mean().item()


@torch.no_grad()
def _usage(memory: ProductKey, facts: Facts) -> dict[str, Any]:
    """How the facts are spread over the slots: Lample et al. 2019, section 4.

    The divergence weighs each reading, as theirs does; shares and counts are those of the state.
    """
    state = memory.initial_state(1)
    weights = torch.zeros(memory.half_keys**2, dtype=torch.float64)
    for keys in facts.keys.split(BATCH):
        reading = memory.read(keys.unsqueeze(0))
        weights.scatter_add_(0, reading.slots.flatten(), reading.weights.flatten().double())
        _, state = memory(keys.unsqueeze(0), state)
    counts, shares = state.usage[0], weights / weights.sum()
    powers = range(int(counts.max()).bit_length())
    readings = {str(2**p) if p == 0 else f"{2**p}-{2 ** (p + 1) - 1}": 2**p for p in powers}
    return {
        "usage": (counts > 0).double().mean().item(),
        "divergence": math.log(len(shares)) + torch.special.xlogy(shares, shares).sum().item(),
        "slots_by_readings": {"0": int((counts == 0).sum())}
        | {name: int(((counts >= low) & (counts < 2 * low)).sum()) for name, low in readings.items()},
    }


def _step_milliseconds(rounds: int) -> dict[int, float]:
    """Forward, backward and both optimisers' steps for 128 inputs of width 256, by the number of slots.

    Processor time of the one thread, sizes taken in turn, the median; the first rounds are left out.
    """
    sizes = {}
    for side in SIDES:
        memory = ProductKey(256, side, 64, count_usage=False)
        rows = memory.values.get_parameter("rows")
        rest = [parameter for parameter in memory.parameters() if parameter is not rows]
        sizes[side] = memory, SparseOptimizer([rows], adam, lr=1e-2), torch.optim.Adam(rest, lr=1e-3)
    inputs = torch.randn(1, 128, 256)
    taken: dict[int, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds + 2):
        for side, (memory, sparse, dense) in sizes.items():
            start = time.process_time()
            memory.zero_grad()
            memory(inputs)[0].square().sum().backward()
            sparse.step()
            dense.step()
            taken[side].append(1e3 * (time.process_time() - start))
    return {side**2: statistics.median(times[2:]) for side, times in taken.items()}


def draw(measured: Mapping[str, Any]) -> "Drawing":
    from mnemos.report.drawing import INK, WITH, WITHOUT, drawing, label

    with drawing(height=2.7, columns=3) as (figure, [slots, known, cost]):
        held = measured["slots_by_readings"]
        slots.bar(list(held), list(held.values()), color=WITH, width=0.72)
        slots.tick_params(axis="x", labelrotation=60)
        slots.set_title("slots by how often read")
        slots.set_xlabel(f"readings in {measured['facts']:,} facts")
        slots.grid(axis="x", visible=False)
        for name, colour, text in (("memory", WITH, "memory"), ("feed_forward", WITHOUT, "feed-forward")):
            shares = measured["accuracy_by_epoch"][name]
            known.plot(range(1, len(shares) + 1), shares, color=colour, linewidth=1.6)
            label(
                known,
                len(shares),
                shares[-1],
                f"{text}\n{shares[-1]:.3f}",
                colour if name == "memory" else "#6b717b",
            )
        known.set_ylim(0, 1.04)
        known.set_title("facts known")
        known.set_xlabel("epoch")
        sizes = {int(size): value for size, value in measured["step_milliseconds"].items()}
        cost.plot(list(sizes), list(sizes.values()), color=INK, linewidth=1.6, marker="o", markersize=4)
        cost.set_xscale("log", base=2)
        cost.set_xticks(list(sizes), ["16k", "66k", "262k", "1M"])
        cost.set_ylim(0)
        cost.set_title("a training step, ms")
        cost.set_xlabel("slots")
    return figure


STUDY = Study(
    name="product-key",
    title="Product keys: exact over n² keys, 20,000 facts by heart, a million slots (Lample et al. 2019)",
    measure=measure,
    thresholds={
        "top_k_equal": Threshold("==", 1.0),
        "accuracy": Threshold(">=", 0.95),
        "feed_forward_accuracy": Threshold("<=", 0.6),
        "usage": Threshold(">", 0.8),
        "divergence": Threshold("<", 1.5),
        "step_growth": Threshold("<=", 4.0),
    },
    paper=[
        Figure(
            "a transformer of 12 layers with one memory against one of 24 layers without",
            "better perplexity, about twice as fast",
            "Lample et al. 2019, abstract",
        ),
        Figure(
            "language models with memory layers against dense ones of more than twice the compute",
            "better on factual tasks",
            "Berges et al. 2024, abstract",
        ),
    ],
    draw=draw,
)
