"""The laws of what a store keeps, for whom, and what it lets go: durable, isolated, forgets."""

import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemos.retention.policy import (
    Policy,
    decayed_strength,
    first_in_first_out,
    least_often_used,
    least_recently_used,
    least_surprising,
    most_redundant,
    order_of_departure,
    reservoir,
)
from mnemos.stores.base import Metric, Records, StoreError
from mnemos.stores.exact import unpack_bits
from mnemos.testing.processes import in_processes
from mnemos.testing.records import contents
from mnemos.testing.store_trial import (
    Clock,
    Opener,
    check_same,
    check_unchanged,
    coarse_keys,
    fill,
    fine_keys,
    ids_of,
    numbered,
    occurrences,
)

POLICIES: dict[str, Callable[[], Policy]] = {
    "first_in_first_out": first_in_first_out,
    "least_recently_used": least_recently_used,
    "least_often_used": least_often_used,
    "decayed_strength": lambda: decayed_strength(half_life=5.0),
    "least_surprising": least_surprising,
    "most_redundant": most_redundant,
    "reservoir": lambda: reservoir(seed=3),
}
BEYOND_WIDTH = 1024


def read_elsewhere(open_store: Opener, path: Path) -> Records:
    with open_store(path, read_only=True) as store:
        assert not store.verify()
        return contents(store)


def reopened(open_store: Opener, path: Path, metric: Metric, dtype: torch.dtype) -> None:
    """Everything is there after closing and opening, here and in another process, to the last bit."""
    clock = Clock()
    store = open_store(path / "store", metric=metric, clock=clock)
    assert store.metric == metric
    keys, values = fine_keys(30, 7, dtype, seed=0), fine_keys(30, 6, torch.bfloat16, seed=1).view(30, 3, 2)
    ids = store.write(keys[:20], values[:20], metadata=[{"line": f"æ\n{row}"} for row in range(20)])
    store.write(keys[20:], values[20:], namespace='Ада "Lovelace"/..', strength=torch.rand(10))
    clock.now += 5
    store.read(keys[:3], 4)
    store.update(ids[:2], keys=keys[20:22], metadata=[None, {}])
    store.delete(ids[5:9])
    before, schema = contents(store), store.schema
    store.close()
    [elsewhere] = in_processes((read_elsewhere, (open_store, path / "store")))
    check_same(before, elsewhere, "in another process")
    with open_store(path / "store") as store:
        assert store.schema == schema
        assert store.metric == metric
        check_same(before, contents(store), "after opening again")
        assert ids_of(store.write(keys[:1], values[:1]))[0] > int(before.ids.max())


def write_and_vanish(open_store: Opener, path: Path) -> None:
    """Ends the process without closing anything."""
    store = open_store(path)
    ids = fill(store)
    store.delete(ids[:5])
    os._exit(0)


def not_closed(open_store: Opener, path: Path) -> None:
    """What was acknowledged is there although nobody closed the store."""
    with pytest.raises(Exception, match="terminated abruptly"):
        in_processes((write_and_vanish, (open_store, path / "store")))
    with open_store(path / "store") as store, open_store(path / "other") as other:
        ids = fill(other)
        other.delete(ids[:5])
        expected, found = contents(other), contents(store)
        times = {"written_at": found.usage.written_at, "last_read": found.usage.last_read}
        check_same(expected._replace(usage=expected.usage._replace(**times)), found, "not closed")
        assert not store.verify()


def opened_as_what_it_is(open_store: Opener, path: Path) -> None:
    """A store of another metric or of another model's keys is refused, and so is writing if read only."""
    with open_store(path / "store", metric="cosine", fingerprint="encoder-1") as store:
        fill(store)
        before = contents(store)
    with open_store(path / "store") as store:
        assert store.stats()["fingerprint"] == "encoder-1"
    with pytest.raises(StoreError, match=r"encoder-1(.|\n)*encoder-2|encoder-2(.|\n)*encoder-1"):
        open_store(path / "store", fingerprint="encoder-2")
    with pytest.raises((StoreError, ValueError), match="cosine"):
        open_store(path / "store", metric="euclidean")
    with open_store(path / "store", fingerprint="encoder-1", read_only=True) as store:
        for write in (
            lambda: fill(store),
            lambda: store.delete(where={}),
            lambda: store.update(before.ids[:1], values=numbered(1)),
            lambda: store.evict(first_in_first_out(), 0),
            lambda: store.compact(),
        ):
            with pytest.raises(StoreError):
                write()
        store.read(before.keys[:1], 3)
        check_unchanged(store, before, "it was opened read only")


def namespaces_apart(open_store: Opener, path: Path) -> None:
    """One namespace never answers for another."""
    with open_store(path / "store") as store:
        keys = coarse_keys(20, 4, torch.float32, seed=0)
        ids = {name: store.write(keys, numbered(20), namespace=name) for name in ("ada", "bob", "default")}
        for name, own in ids.items():
            hits = store.read(keys, 60, where={"namespace": name})
            assert set(ids_of(hits.ids.flatten())) == {*ids_of(own), -1}, name
            assert ids_of(store.ids({"namespace": name})) == ids_of(own)
        assert set(ids_of(store.read(keys, 60).ids.flatten())) == {*ids_of(ids["default"]), -1}
        assert store.count() == 60
        assert store.count({"namespace": {"in": ["ada", "bob"]}}) == 40
        assert store.namespaces() == ["ada", "bob", "default"]
        assert store.stats()["namespaces"] == {"ada": 20, "bob": 20, "default": 20}
        with pytest.raises(ValueError, match="namespace"):
            store.read(keys, where={"namespace": {"in": ["ada", "bob"]}})
        assert ids_of(store.evict(first_in_first_out(), 5, where={"namespace": "ada"})) == ids_of(
            ids["ada"][:15]
        )
        assert store.delete(where={"namespace": "bob"}) == 20
        assert store.count({"namespace": "default"}) == 20
        assert store.namespaces() == ["ada", "default"]


def evicted(open_store: Opener, path: Path, policy: Policy, dtype: torch.dtype) -> None:
    """Exactly what the policy lets go, of what the filter means."""
    clock = Clock()
    metric: Metric = "hamming" if dtype == torch.uint8 else "euclidean"
    with open_store(path / "store", metric=metric, clock=clock) as store:
        keys = coarse_keys(24, 3, dtype, seed=0)
        for part in range(4):  # the first are read between the writes, so every policy has its own order
            clock.now += 3
            rows = slice(6 * part, 6 * part + 6)
            metadata = [{"half": row % 2} for row in range(6)]
            store.write(keys[rows], numbered(6), metadata=metadata, strength=torch.arange(6) * 0.5)
            clock.now += 2
            if part < 2:
                store.read(keys[2 * part : 2 * part + 4], 2)
        for keep, where in ((30, None), (9, {"half": 1}), (15, {}), (15, None), (0, {"half": 0})):
            chosen = store.get(store.ids(where))
            kept_keys = unpack_bits(chosen.keys) if dtype == torch.uint8 else chosen.keys
            order = order_of_departure(policy, chosen.usage, kept_keys, clock.now)
            expected = chosen.ids[order[: max(0, len(order) - keep)]]
            rest = set(ids_of(store.ids())) - set(ids_of(expected))
            assert sorted(ids_of(store.evict(policy, keep, where=where))) == sorted(ids_of(expected))
            assert set(ids_of(store.ids())) == rest, f"{policy.name} kept or let go the wrong records"


def erased(open_store: Opener, path: Path) -> None:
    """After `delete`, `update` or `evict` and then `compact`, the bytes are in no file."""
    keys, values = fine_keys(600, 8, torch.float32, seed=0), fine_keys(600, 8, torch.float32, seed=1)
    words = [f"secret{row:04}ä" for row in range(600)]
    gone = [*range(100, 300), *range(400, 420)]
    store = open_store(path / "store")
    ids = store.write(keys, values, metadata=[{"word": word} for word in words])
    left = store.write(keys[:9] + 1, values[:9] + 1, namespace="Zuckertüte")
    store.read(keys[:50], 3)
    texts = [keys[row].numpy().tobytes() for row in gone] + [values[row].numpy().tobytes() for row in gone]
    texts += [words[row].encode() for row in gone] + [json.dumps(words[row])[1:-1].encode() for row in gone]
    texts += [(keys[:9] + 1).numpy().tobytes(), "Zuckertüte".encode()]
    store.delete(left)
    store.delete(ids[100:290])
    store.delete(where={"word": {"in": words[290:300]}})
    new = torch.zeros(20, 8)
    store.update(ids[400:420], keys=new, values=new, metadata=[None] * 20)
    rest = contents(store)
    freed = store.compact()
    assert freed > 0, "compact says that nothing was freed"
    assert not occurrences(path, texts), f"erased bytes remain: {occurrences(path, texts)[:3]}"
    check_same(rest, contents(store), "after compact")
    store.close()
    assert not occurrences(path, texts), "erased bytes came back on closing"
    store = open_store(path / "store")
    check_same(rest, contents(store), "after compact and opening again")
    assert not store.verify()
    assert ids_of(store.read(keys[500:501], 1).ids) == ids_of(store.read(keys[500:501], 2).ids[:, :1])
    store.evict(first_in_first_out(), 0)
    store.compact()
    assert not occurrences(path, [keys[row].numpy().tobytes() for row in range(600)])
    assert not occurrences(path, [word.encode() for word in words])
    store.close()


def snapshots(open_store: Opener, path: Path) -> None:
    """A copy as of one moment, whole and on its own."""
    with open_store(path / "store", fingerprint="encoder-1") as store:
        ids = fill(store)
        store.delete(ids[3:6])
        store.read(torch.ones(2, 5), 3)
        before = contents(store)
        store.snapshot(path / "copy")
        with pytest.raises((StoreError, OSError)):
            store.snapshot(path / "copy")
        store.delete(ids[:3])
        with open_store(path / "copy") as copy:
            check_same(before, contents(copy), "the copy")
            assert not copy.verify()
            assert copy.stats()["fingerprint"] == "encoder-1"
            fill(copy)
        assert store.count() == 14
        fill(store)


def facts(open_store: Opener, path: Path) -> None:
    """`stats` tells the format's version, so that a later release can read it."""
    with open_store(path / "store", metric="cosine") as store:
        assert store.stats()["schema"] is None
        fill(store)
        stats: dict[str, Any] = store.stats()
    assert stats["records"] == 20
    assert stats["bytes"] >= 20 * 5 * 4
    assert stats["format"] is None or stats["format"] >= 1
    assert stats["schema"]


def read_within(open_store: Opener, path: Path, most: int) -> int:
    """Reads a store while the process may not take more than `most` bytes more of memory of its own."""
    with open_store(path) as store:
        store.read(torch.ones(1, BEYOND_WIDTH), 1)
        limit = _own_memory() + most
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        with pytest.raises(RuntimeError):
            torch.empty(2 * most, dtype=torch.uint8)  # so the limit is one; what was freed since may be taken
        hits = store.read(torch.eye(BEYOND_WIDTH)[:8], 5)
        store.gather(hits.ids.flatten())
        assert not store.verify()
        return store.count()


def _own_memory() -> int:
    """Bytes of private, writable memory; files mapped for reading do not count."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmData:\s*(\d+) kB", status)[0]) * 1024


def beyond_ram(open_store: Opener, path: Path, most: int = 128 << 20) -> None:
    """Reading and checking a store takes far less memory than the store is large."""
    rows = 4 * most // (4 * BEYOND_WIDTH)
    with open_store(path / "store") as store:
        for seed in range(16):
            keys = fine_keys(rows // 16, BEYOND_WIDTH, torch.float32, seed)
            store.write(keys, torch.arange(len(keys)))
        assert store.stats()["bytes"] > 4 * most
    assert in_processes((read_within, (open_store, path / "store", most))) == [rows // 16 * 16]
