"""Random histories: whatever is done to a store, it answers as the store in RAM does."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run
from torch import Tensor

from mnemos.retention.policy import (
    Policy,
    decayed_strength,
    first_in_first_out,
    least_often_used,
    least_recently_used,
    least_surprising,
    most_redundant,
    reservoir,
)
from mnemos.stores.base import Store
from mnemos.stores.ram import RamStore
from mnemos.testing.records import contents, same_bits
from mnemos.testing.store_trial import KEY_KINDS, Clock, Opener, check_same, coarse_keys

POLICIES = (
    first_in_first_out(),
    least_recently_used(),
    least_often_used(),
    decayed_strength(half_life=3.0),
    least_surprising(),
    most_redundant(),
    reservoir(seed=0),
)
WIDTH = 3
_SHARED_MEMORY = Path("/dev/shm")  # where there is one syncing is free, and answers do not depend on it
NAMESPACES = st.sampled_from(["default", "ada", "b'o\"b"])
RARELY = st.sampled_from([False] * 5 + [True])
SEEDS = st.integers(0, 5)  # few, so that the same keys come again
SCALARS = st.sampled_from([None, True, 0, 1, 1.5, "a", "b"])
METADATA = st.one_of(st.none(), st.fixed_dictionaries({"x": SCALARS}, optional={"y.z": SCALARS}))
CONDITIONS = st.one_of(
    SCALARS,
    st.fixed_dictionaries({"in": st.lists(SCALARS, max_size=2)}),
    st.fixed_dictionaries({"ne": SCALARS}),
    st.fixed_dictionaries({"ge": st.sampled_from([0, 1.5, "b"])}),
)
ENTRIES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}), st.fixed_dictionaries({"x": CONDITIONS}), st.fixed_dictionaries({"y.z": CONDITIONS})
)
WHERE = st.one_of(
    st.none(), ENTRIES, st.builds(lambda name, rest: {"namespace": name, **rest}, NAMESPACES, ENTRIES)
)


def check_histories(open_store: Opener, durable: bool, limits: Any) -> None:
    """Runs random histories on a store and on the model; every answer must be the same.

    Args:
        durable: whether opening the path again gives the same records.
        limits: `hypothesis.settings`: how many histories (`max_examples`), and the longest
            (`stateful_step_count`).
    """
    machine = partial(_History, open_store, durable)
    limits = settings(limits, deadline=None, suppress_health_check=list(HealthCheck))
    run(machine, settings=limits)  # type: ignore[arg-type]  # a class is asked for, but only called


class _History(RuleBasedStateMachine):
    def __init__(self, open_store: Opener, durable: bool) -> None:
        super().__init__()
        self.open_store = open_store
        self.durable = durable
        self.clock = Clock()
        self.folder = tempfile.TemporaryDirectory(dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
        self.path = Path(self.folder.name) / "store"
        self.copies = 0
        self.given: list[int] = []  # the store's ids, in order; the model's are 0, 1, ...

    @initialize(kind=st.sampled_from(KEY_KINDS), value_shape=st.sampled_from([(), (2,), (2, 2)]))
    def begin(self, kind: Any, value_shape: tuple[int, ...]) -> None:
        self.metric, self.dtype = kind
        self.value_shape = value_shape
        self.model: Store = RamStore(metric=self.metric, clock=self.clock)
        self.store = self.open_store(self.path, metric=self.metric, clock=self.clock)
        for seed, namespace in enumerate(["default", "ada", "default"]):
            self.write(namespace, [{"x": 1}, {"x": True, "y.z": "a"}, None, {"x": 1.5}], seed, broken=False)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        self.folder.cleanup()

    def values(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 99, (count, *self.value_shape), generator=generator).to(torch.bfloat16)

    def both(self, verb: str, **given: Any) -> tuple[Any, Any]:
        """The same call to both, ids translated: their answers, or None if both refused it alike."""
        translated = given | ({"ids": self.theirs(given["ids"])} if given.get("ids") is not None else {})
        expected, found = _outcome(self.model, verb, given), _outcome(self.store, verb, translated)
        if not isinstance(expected, type) and not isinstance(found, type):
            return expected, found
        assert expected is found, f"{verb}({given}): expected {expected}, found {found}"
        return None, None

    def theirs(self, ids: Tensor) -> Tensor:
        """The store's ids for the model's, which count from 0; what neither knows stays."""
        known = [self.given[id_] if 0 <= id_ < len(self.given) else id_ for id_ in ids.flatten().tolist()]
        return torch.tensor(known, dtype=torch.int64).view(ids.shape)

    def some_ids(self, data: st.DataObject, unique: bool) -> Tensor:
        """Ids that are there, and rarely one that is not."""
        known = self.model.ids().tolist()
        stray = [10**6] if not known or data.draw(st.integers(0, 9)) == 9 else []
        chosen = data.draw(st.lists(st.sampled_from(known + stray), max_size=5, unique=unique))
        return torch.tensor(chosen, dtype=torch.int64)

    @rule(namespace=NAMESPACES, metadata=st.lists(METADATA, max_size=6), seed=SEEDS, broken=RARELY)
    def write(self, namespace: str, metadata: list[Any], seed: int, broken: bool) -> None:
        keys = coarse_keys(len(metadata), WIDTH, self.dtype, seed)
        if broken and keys.is_floating_point() and len(keys):
            keys[-1, 0] = torch.nan
        expected, found = self.both(
            "write",
            keys=keys,
            values=self.values(len(keys), seed),
            namespace=namespace,
            metadata=metadata,
            strength=torch.arange(len(keys)).flip(0) / 2,
        )
        if expected is not None:
            assert found.tolist() == sorted(set(found.tolist())), "ids must be distinct and ascending"
            assert not len(found) or not self.given or int(found[0]) > self.given[-1], "an id was reused"
            self.given += found.tolist()

    @rule(
        seed=SEEDS,
        count=st.integers(0, 3),
        k=st.sampled_from([1, 2, 5, 40]),
        where=WHERE,
        touch=st.booleans(),
    )
    def read(self, seed: int, count: int, k: int, where: Any, touch: bool) -> None:
        queries = coarse_keys(count, WIDTH, self.dtype, seed)
        expected, found = self.both("read", queries=queries, k=k, where=where, touch=touch)
        if self.model.schema is not None:
            assert torch.equal(self.theirs(expected.ids), found.ids), f"read: {expected.ids}, not {found.ids}"
            assert torch.equal(expected.scores, found.scores), f"read: {expected.scores}, not {found.scores}"
            assert same_bits(expected.values, found.values), "read: values of other records"

    @rule(data=st.data())
    def gather(self, data: st.DataObject) -> None:
        expected, found = self.both("gather", ids=self.some_ids(data, unique=False))
        if expected is not None:
            assert same_bits(expected[0], found[0])
            assert same_bits(expected[1], found[1])

    @rule(where=WHERE)
    def find(self, where: Any) -> None:
        expected, found = self.both("ids", where=where)
        assert torch.equal(self.theirs(expected), found), f"ids({where})"
        expected, found = self.both("count", where=where)
        assert expected == found, f"count({where})"

    @rule(
        data=st.data(), seed=SEEDS, parts=st.sets(st.sampled_from(["keys", "values", "metadata", "strength"]))
    )
    def update(self, data: st.DataObject, seed: int, parts: set[str]) -> None:
        ids = self.some_ids(data, unique=data.draw(st.integers(0, 9)) < 9)
        new = {
            "keys": coarse_keys(len(ids), WIDTH, self.dtype, seed),
            "values": self.values(len(ids), seed),
            "metadata": [{"x": seed}, None, {"y.z": "a"}, {}, None][: len(ids)],
            "strength": torch.arange(len(ids)) / 3,
        }
        self.both("update", ids=ids, **{name: new[name] for name in parts})

    @rule(data=st.data())
    def delete_by_id(self, data: st.DataObject) -> None:
        expected, found = self.both("delete", ids=self.some_ids(data, unique=True))
        assert expected == found, "delete: another count"

    @rule(where=WHERE.filter(lambda where: where is not None))
    def delete_by_filter(self, where: Any) -> None:
        expected, found = self.both("delete", where=where)
        assert expected == found, f"delete(where={where}): another count"

    @rule(policy=st.sampled_from(POLICIES), keep=st.integers(0, 12), where=WHERE)
    def evict(self, policy: Policy, keep: int, where: Any) -> None:
        if policy.name.startswith("reservoir") and self.given != list(range(len(self.given))):
            return  # it is a function of the ids, which then differ
        expected, found = self.both("evict", policy=policy, keep=keep, where=where)
        assert sorted(self.theirs(expected).tolist()) == sorted(found.tolist()), f"evict by {policy.name}"

    @rule()
    def compact(self) -> None:
        assert self.store.compact() >= 0
        assert not self.store.verify()

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @precondition(lambda self: self.durable)
    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open_store(self.path, clock=self.clock)
        assert not self.store.verify()

    @precondition(lambda self: self.durable)
    @rule()
    def snapshot(self) -> None:
        self.copies += 1
        path = Path(self.folder.name) / f"copy{self.copies}"
        self.store.snapshot(path)
        with self.open_store(path, read_only=True) as copy:
            check_same(contents(self.store), contents(copy), "a snapshot")

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def the_same(self) -> None:
        if not hasattr(self, "store"):
            return
        expected, found = contents(self.model), contents(self.store)
        ids = self.theirs(expected.ids)
        check_same(expected._replace(ids=ids, usage=expected.usage._replace(ids=ids)), found, "contents")
        assert self.model.namespaces() == self.store.namespaces()


def _outcome(store: Store, verb: str, given: dict[str, Any]) -> Any:
    """What a call returns, or the kind of error that refuses it."""
    try:
        return getattr(store, verb)(**given)
    except (ValueError, KeyError) as error:
        return type(error)
