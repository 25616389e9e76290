"""Step 6: half of the memory let go by each policy, on copies of it."""

import time
from typing import Any

import mnemos
from mnemos import retention
from mnemos.demo import texts
from mnemos.demo.plan import Plan
from mnemos.demo.results import Evicted, Learned
from mnemos.models.checkpoint import load_model
from mnemos.models.mixture import mixed_nats, perplexity
from mnemos.models.tuning import evidence, load_mixture
from mnemos.progress import Advance
from mnemos.stores.maintenance import bytes_on_disk

HALF_LIFE = 60  # seconds, of the policy that lets strength decay


def evict(plan: Plan, learned: Learned, advance: Advance) -> Evicted:
    """Uses a copy of the memory on validation text, then halves a copy of that by each policy."""
    model, b = load_model(plan.model), texts.load(plan.folder).b
    mixture = load_mixture(plan.model, model.model.width)
    used = plan.fresh("used")
    with mnemos.open(plan.memory, read_only=True) as store:
        store.snapshot(used)
        records = store.count()
    policies: list[dict[str, Any]] = []
    names = policy_names(plan.seed)
    with mnemos.open(used) as store:
        advance(0.0, "using the memory, so that policies know what is of use")
        evidence(model, store, b.valid, touch=True)
    for row, name in enumerate(names):
        advance((row + 1) / (len(names) + 1), name)
        path = plan.fresh("halved")
        with mnemos.open(used, read_only=True) as store:
            store.snapshot(path)
        with mnemos.open(path) as store:
            started = time.perf_counter()
            store.evict(retention.named(name), records // 2)
            store.compact()
            seconds = time.perf_counter() - started
            score = perplexity(mixed_nats(evidence(model, store, b.test), mixture))
            held = store.count()
        policies.append(
            {"policy": name, "records": held, "disk": bytes_on_disk(path), "b": score, "seconds": seconds}
        )
    for leftover in ("used", "halved"):
        plan.fresh(leftover)
    return Evicted(records, learned.b_with, learned.b_without, policies)


def policy_names(seed: int) -> list[str]:
    """Every policy that there is, with its parameter where it has one."""
    return [
        name.replace("(half_life)", f"({HALF_LIFE})").replace("(seed)", f"({seed})")
        for name in retention.POLICY_NAMES
    ]
