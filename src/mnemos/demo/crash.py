"""Step 3: reading is killed midway, goes on in a new process, and nothing is lost or doubled."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mnemos
from mnemos.demo import texts
from mnemos.demo.plan import Plan
from mnemos.demo.results import Learned, Resumed
from mnemos.models.checkpoint import load_model
from mnemos.models.mixture import mixed_nats, perplexity
from mnemos.models.tuning import evidence, load_mixture
from mnemos.progress import Advance
from mnemos.stores.base import Store, StoreError

SHARE = 0.4  # of the records, after which the reader is killed
PATIENCE = 300.0  # seconds for a child to write its first records


def command(*arguments: str | Path) -> list[str]:
    """A `mnemos` command for a new process, with its answer as JSON."""
    return [sys.executable, "-m", "mnemos", *map(str, arguments), "--json"]


def answer_of(*arguments: str | Path) -> dict[str, Any]:
    """Runs a `mnemos` command in a new process and returns its JSON object."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"mnemos {arguments[0]} ended with code {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def survive(plan: Plan, learned: Learned, advance: Advance) -> Resumed:
    """Kills a reader with SIGKILL, starts it again, and compares with what was read in one go."""
    path = plan.fresh("killed")
    reading = ("read", plan.model, path, plan.folder / "text" / "b" / "train", "--no-score")
    advance(0.0, "reading in another process")
    killed_at = kill_midway(command(*reading), path, round(learned.records * SHARE))
    advance(0.3, f"killed at {killed_at:,} records; reading on")
    resumed_at = answer_of(*reading)["found"]
    advance(0.6, "comparing record by record")
    model, b = load_model(plan.model), texts.load(plan.folder).b
    with (
        mnemos.open(plan.memory, read_only=True) as whole,
        mnemos.open(path, read_only=True) as other,
    ):
        differing, faults = differing_records(whole, other), other.verify()
        records = other.count()
        advance(0.7, "scoring unseen text")
        mixture = load_mixture(plan.model, model.model.width)
        score = perplexity(mixed_nats(evidence(model, other, b.test), mixture))
    return Resumed(killed_at, resumed_at, records, differing, score, learned.b_with, faults)


def kill_midway(arguments: list[str], path: Path, records: int) -> int:
    """Starts a reader, kills it once the store at `path` holds so many records, and says how many it held.

    The count is read by this process while the other one writes.
    """
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as reader:
        held, deadline = 0, time.monotonic() + PATIENCE
        while held < max(records, 1) and reader.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            held = _count(path)
        reader.kill()
        _, errors = reader.communicate()
    if not held:
        raise RuntimeError(f"the reader wrote nothing within {PATIENCE:.0f} s: {errors[-2000:]}")
    return held


def _count(path: Path) -> int:
    try:
        with mnemos.open(path, read_only=True) as store:
            return store.count()
    except (StoreError, FileNotFoundError):  # it is not there yet
        return 0


def differing_records(one: Store, other: Store) -> int:
    """How many records are not the same, bit for bit, in what the two stores were told."""
    first, second = one.ids(), other.ids()
    common = set(first.tolist()) & set(second.tolist())
    differing = len(set(first.tolist()) ^ set(second.tolist()))
    for part in first[[int(id_) in common for id_ in first]].split(4096):
        left, right = one.get(part), other.get(part)
        same = (left.keys == right.keys).all(1) & (left.values == right.values)
        same &= left.usage.strength == right.usage.strength
        facts = zip(left.metadata, right.metadata, left.namespaces, right.namespaces, strict=True)
        differing += sum(
            not bits or a != b or here != there
            for bits, (a, b, here, there) in zip(same.tolist(), facts, strict=True)
        )
    return differing
