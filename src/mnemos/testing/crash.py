"""Kills a process that changes a store, again and again, and checks what it had acknowledged.

A child process does random writes, updates, deletions, evictions, compactions and snapshots, and says so
before each and after each. The parent kills it with SIGKILL at a random moment, opens the store itself
and compares every record, bit for bit, with what was acknowledged. The one operation that was under way
may be wholly there or wholly absent.

A killed process's writes survive in the operating system, so this does not test a loss of power, for
which a store must also have synced its files before it acknowledges.
"""

import random
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnemos.retention.policy import first_in_first_out
from mnemos.stores.base import Store
from mnemos.stores.filters import parse
from mnemos.testing.processes import fork_server
from mnemos.testing.records import contents

WIDTH = 16
MANY = 300  # records, beyond which the oldest are evicted
VERBS = {
    "write": 8,
    "update": 4,
    "delete": 2,
    "forget": 2,
    "evict": 2,
    "compact": 2,
    "snapshot": 1,
    "read": 2,
}


class Kept(NamedTuple):
    """One record, comparable."""

    key: bytes
    value: bytes
    metadata: dict[str, Any] | None
    namespace: str
    strength: float


State = dict[int, Kept]


class Operation(NamedTuple):
    """One change, a function of its seed and of the ids that were there."""

    verb: str
    seed: int
    ids: list[int]  # of update and delete
    keys: Tensor
    values: Tensor
    metadata: list[dict[str, Any] | None]
    namespace: str
    keep: int

    @property
    def where(self) -> dict[str, Any]:
        """What "forget" deletes and "evict" chooses from."""
        return {"namespace": self.namespace} if self.verb == "evict" else {"part": {"in": [0, 3]}}


@dataclass
class CrashReport:
    """What was found after so many kills."""

    kills: int = 0
    acknowledged: int = 0  # operations that had returned
    in_flight: int = 0  # kills in the middle of an operation
    completed: int = 0  # of these, operations that were wholly there
    lost: list[str] = field(default_factory=list)  # acknowledged, and not or not rightly there
    partial: list[str] = field(default_factory=list)  # in flight, and partly there
    faults: list[str] = field(default_factory=list)  # found by `verify`, or the store would not open

    @property
    def clean(self) -> bool:
        return not (self.lost or self.partial or self.faults)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.in_flight} in the middle of an operation ({self.completed} of them "
            f"were complete), {self.acknowledged} acknowledged operations: {len(self.lost)} lost, "
            f"{len(self.partial)} partly there, {len(self.faults)} faults"
        )


def kill_again_and_again(
    open_store: Callable[..., Store],
    path: Path,
    kills: int,
    seed: int,
    watch: Callable[[CrashReport], None] = lambda report: None,
) -> CrashReport:
    """Kills the writers of one store `kills` times.

    Args:
        open_store: called with the path; picklable, as it runs in other processes too.
        path: where the store is made; snapshots go beside it.
        seed: of the operations. The moments of the kills are the machine's own and differ every time.
        watch: is told after every kill.
    """
    report, chance = CrashReport(), random.Random(seed)
    state: State = {}
    durations: dict[str, float] = {}
    for _ in range(kills):
        witness = _Witness(state, durations)
        witness.run(open_store, path, chance)
        report.kills += 1
        report.acknowledged += witness.acknowledged
        report.in_flight += witness.pending is not None
        report.lost += witness.complaints
        state = _judge(open_store, path, witness, report)
        watch(report)
    return report


def draw(seed: int, ids: list[int]) -> Operation:
    """The operation of a seed, for a store that holds these ids."""
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    verb = chance.choices(list(VERBS), list(VERBS.values()))[0]
    verb = "evict" if len(ids) > MANY else verb if ids else "write"
    count = chance.randint(1, 40)
    chosen = sorted(chance.sample(ids, min(count, len(ids)))) if verb in ("update", "delete") else []
    count = len(chosen) or count
    return Operation(
        verb,
        seed,
        chosen,
        torch.randn(count, WIDTH, generator=generator),
        torch.randint(0, 2**62, (count, 3), generator=generator),
        [{"seed": seed, "part": row % 9} if row % 4 else None for row in range(count)],
        chance.choice(["default", "ada"]),
        chance.randint(0, MANY // 3),
    )


def perform(store: Store, operation: Operation, snapshot: Path) -> list[int]:
    """Does it, and returns the ids of what was written or evicted."""
    verb, ids = operation.verb, torch.tensor(operation.ids, dtype=torch.int64)
    what: dict[str, Any] = {
        "keys": operation.keys,
        "values": operation.values,
        "metadata": operation.metadata,
        "strength": operation.keys[:, 0].abs(),
    }
    if verb == "write":
        return store.write(**what, namespace=operation.namespace).tolist()
    if verb == "update":
        store.update(ids, **what)
    elif verb == "delete":
        store.delete(ids)
    elif verb == "forget":
        store.delete(where=operation.where)
    elif verb == "evict":
        return store.evict(first_in_first_out(), operation.keep, where=operation.where).tolist()
    elif verb == "compact":
        store.compact()
    elif verb == "snapshot":
        store.snapshot(snapshot)
    else:
        store.read(operation.keys[:3], 5)
        store.flush()
    return []


def after(operation: Operation, state: State, written: list[int]) -> State:
    """What a store that held `state` must hold when the operation is done."""
    new = dict(state)
    rows = zip(
        operation.ids if operation.verb == "update" else written,
        operation.keys,
        operation.values,
        operation.metadata,
        strict=operation.verb in ("write", "update"),
    )
    if operation.verb in ("write", "update"):
        for id_, key, value, metadata in rows:
            namespace = state[id_].namespace if operation.verb == "update" else operation.namespace
            new[id_] = _kept(key, value, metadata, namespace, float(key[0].abs()))
    elif operation.verb == "delete":
        for id_ in operation.ids:
            del new[id_]
    elif operation.verb in ("forget", "evict"):
        fits = parse(operation.where).fits
        chosen = sorted(id_ for id_, kept in state.items() if fits(kept.namespace, kept.metadata))
        leaving = chosen if operation.verb == "forget" else chosen[: max(0, len(chosen) - operation.keep)]
        for id_ in leaving:
            del new[id_]
    return new


def state_of(store: Store) -> State:
    """Everything that a store holds."""
    records = contents(store)
    return {
        int(id_): _kept(*row)
        for id_, *row in zip(
            records.ids,
            records.keys,
            records.values,
            records.metadata,
            records.namespaces,
            records.usage.strength.tolist(),
            strict=True,
        )
    }


def _kept(key: Tensor, value: Tensor, metadata: Any, namespace: str, strength: float) -> Kept:
    return Kept(key.numpy().tobytes(), value.numpy().tobytes(), metadata, namespace, strength)


def _snapshot_path(path: Path, seed: int) -> Path:
    return path.with_name(f"{path.name}-snapshot-{seed}")


def _work(open_store: Callable[..., Store], path: Path, seed: int, pipe: Connection) -> None:
    """The child: operations without end, each announced before and acknowledged after."""
    try:
        store = open_store(path)
        ids = store.ids().tolist()
        while True:
            seed += 1
            operation = draw(seed, ids)
            pipe.send(("begins", seed))
            started = time.perf_counter()
            result = perform(store, operation, _snapshot_path(path, seed))
            pipe.send(("done", (result, time.perf_counter() - started)))
            ids = store.ids().tolist()
    except Exception:
        pipe.send(("failed", traceback.format_exc()))


class _Witness:
    """The parent's side of one life of the child: what it said, and what must therefore be there."""

    def __init__(self, state: State, durations: dict[str, float]) -> None:
        self.state, self.durations = state, durations
        self.pending: Operation | None = None
        self.acknowledged = 0
        self.snapshots: list[tuple[Path, State]] = []
        self.complaints: list[str] = []

    def run(self, open_store: Callable[..., Store], path: Path, chance: random.Random) -> None:
        context = fork_server()
        pipe, childs_end = context.Pipe(duplex=False)
        seed = chance.randrange(2**31)
        process = context.Process(target=_work, args=(open_store, path, seed, childs_end))
        process.start()
        childs_end.close()
        self._listen(pipe, path, operations=chance.choice([0, *range(1, 12)]))
        verb = self.pending.verb if self.pending else "opening"
        time.sleep(chance.uniform(0, 1.2 * self.durations.get(verb, 0.02)))
        process.kill()
        process.join()
        self._listen(pipe, path, operations=None)
        pipe.close()

    def _listen(self, pipe: Connection, path: Path, operations: int | None) -> None:
        """Takes in messages until so many operations have begun, or until there are no more."""
        begun = 0
        while operations is None or begun < operations:
            try:
                kind, said = pipe.recv()
            except (EOFError, OSError):  # the end, perhaps in the middle of a message
                return
            if kind == "failed":
                self.complaints.append(f"the store failed: {said}")
                return
            if kind == "begins":
                begun += 1
                self.pending = draw(said, sorted(self.state))
            else:
                self._acknowledge(path, *said)

    def _acknowledge(self, path: Path, written: list[int], seconds: float) -> None:
        operation, self.pending = self.pending, None
        assert operation is not None
        usual = self.durations.get(operation.verb, seconds)
        self.durations[operation.verb] = 0.8 * usual + 0.2 * seconds
        self.acknowledged += 1
        self.state = after(operation, self.state, written if operation.verb == "write" else [])
        if operation.verb == "snapshot":
            self.snapshots.append((_snapshot_path(path, operation.seed), self.state))


def _judge(open_store: Callable[..., Store], path: Path, witness: _Witness, report: CrashReport) -> State:
    """Opens what the dead process left, compares, and returns what is there."""
    try:
        with open_store(path) as store:
            report.faults += store.verify()
            found = state_of(store)
        for copy, expected in witness.snapshots:
            with open_store(copy) as store:
                if state_of(store) != expected:
                    report.lost.append(f"the snapshot {copy.name} is not what it was taken of")
    except Exception:
        report.faults.append(traceback.format_exc())
        found = witness.state
    for copy in path.parent.glob(f"{path.name}-snapshot-*"):
        shutil.rmtree(copy)
    if found != witness.state:
        _explain(found, witness, report)
    return found


def _explain(found: State, witness: _Witness, report: CrashReport) -> None:
    """Whether a difference is the operation that was under way, a part of it, or a loss."""
    state, pending = witness.state, witness.pending
    changed = {id_ for id_ in found.keys() | state.keys() if found.get(id_) != state.get(id_)}
    if pending is None:
        report.lost.append(f"nothing was under way, but records {sorted(changed)[:10]} differ")
        return
    new = sorted(found.keys() - state.keys())
    if pending.verb == "write":
        touched = set(new)
        complete = len(new) == len(pending.keys) and after(pending, state, new) == found
    else:
        expected = after(pending, state, [])
        touched = {id_ for id_ in state if expected.get(id_) != state[id_]}
        complete = expected == found
    if complete:
        report.completed += 1
    elif changed <= touched:
        report.partial.append(
            f"{pending.verb}: {len(changed)} of {len(touched or pending.keys)} records changed"
        )
    else:
        lost = sorted(changed - touched)[:10]
        report.lost.append(f"records {lost} differ, which the {pending.verb} under way had no business with")
