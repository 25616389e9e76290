"""The laws of a store that several processes use at once."""

import time
from pathlib import Path

import torch

from mnemos.stores.base import StoreBusyError
from mnemos.testing.processes import in_processes
from mnemos.testing.store_trial import Opener, ids_of, numbered

BATCH = 25  # records that two processes write at once


def _tell(path: Path) -> None:
    """Says that somebody is watching the store at this path."""
    path.with_name("watched").touch()


def _wait(path: Path, seconds: float = 60.0) -> None:
    """Waits until somebody watches."""
    until = time.monotonic() + seconds
    while not path.with_name("watched").exists():
        assert time.monotonic() < until, "the process that was to watch did not come"
        time.sleep(0.001)


def write_batches(open_store: Opener, path: Path, batches: int, owner: str) -> list[int]:
    """Writes whole batches, waiting as long as it takes; returns the ids."""
    ids: list[int] = []
    with open_store(path) as store:
        _wait(path)
        for number in range(batches):
            keys = torch.full((BATCH, 4), float(number))
            metadata = [{"owner": owner, "batch": number}] * BATCH
            for _ in range(1000):
                try:
                    ids += ids_of(store.write(keys, numbered(BATCH, number), metadata=metadata))
                    break
                except StoreBusyError:
                    time.sleep(0.01)
    return ids


def watch_batches(open_store: Opener, path: Path, total: int) -> int:
    """Reads until all is there, and returns how many states it saw; no batch may be seen in part."""
    seen = [-1]
    with open_store(path, read_only=True) as store:
        _tell(path)
        for _ in range(100_000):
            count, ids = store.count(), store.ids()
            assert count % BATCH == 0, f"a reader counted {count} records, in the middle of a batch"
            assert len(ids) % BATCH == 0, f"a reader saw {len(ids)} ids, in the middle of a batch"
            assert len(ids) >= seen[-1], "records vanished"
            seen += [len(ids)] if len(ids) != seen[-1] else []
            if len(ids):
                last = store.get(ids[-BATCH:])
                assert len({(record or {}).get("batch") for record in last.metadata}) == 1
                assert bool((last.keys == last.keys[0]).all())
                hits = store.read(torch.ones(1, 4), BATCH, where=dict(last.metadata[0] or {}))
                assert int((hits.ids >= 0).sum()) == BATCH, "a batch was read in part"
            if len(ids) == total:
                return len(seen)
    raise AssertionError(f"a reader never saw {total} records")


def shared_between_processes(open_store: Opener, path: Path) -> None:
    """Two processes write while a third reads: it sees whole batches, and nothing is lost."""
    with open_store(path / "store") as store:
        store.write(torch.zeros(BATCH, 4), numbered(BATCH), metadata=[{"owner": "nobody"}] * BATCH)
    states, left, right = in_processes(
        (watch_batches, (open_store, path / "store", 21 * BATCH)),
        (write_batches, (open_store, path / "store", 10, "left")),
        (write_batches, (open_store, path / "store", 10, "right")),
    )
    assert states > 1
    assert not set(left) & set(right), "two writers were given the same ids"
    with open_store(path / "store") as store:
        assert not store.verify()
        assert ids_of(store.ids({"owner": "left"})) == left
        assert ids_of(store.ids({"owner": "right"})) == right


def update_together(open_store: Opener, path: Path, rounds: int) -> None:
    """Gives every part of every record the same new number, again and again."""
    with open_store(path) as store:
        ids = store.ids()
        _wait(path)
        for number in range(1, rounds + 1):
            same = torch.full((len(ids), 1), float(number))
            store.update(
                ids,
                keys=same.expand(-1, 4),
                values=same.long().squeeze(1),
                metadata=[{"number": number}] * len(ids),
                strength=same.squeeze(1),
            )


def watch_together(open_store: Opener, path: Path, rounds: int) -> int:
    """Reads until the last number, and returns how many it saw; all parts must have the same."""
    seen = set()
    with open_store(path, read_only=True) as store:
        _tell(path)
        for _ in range(100_000):
            records = store.get(store.ids())
            numbers = {entry["number"] for entry in records.metadata if entry}
            numbers |= {*records.keys.flatten().tolist(), *records.values.tolist()}
            numbers |= set(records.usage.strength.tolist())
            assert len(numbers) == 1, f"one record as of several moments: {numbers}"
            hits = store.read(torch.ones(1, 4), 5)
            assert torch.equal(hits.scores, 4.0 * hits.values), "scores and values of different moments"
            [number] = numbers
            there = int((store.read(torch.ones(1, 4), 5, where={"number": number}).ids >= 0).sum())
            assert there in (0, 5), "a filter fits one moment's metadata and another's keys"
            seen.add(number)
            if number == rounds:
                return len(seen)
    raise AssertionError("a reader never saw the last update")


def one_moment(open_store: Opener, path: Path) -> None:
    """What a reader is given is all of one moment, whatever another process changes meanwhile."""
    with open_store(path / "store") as store:
        store.write(
            torch.zeros(BATCH, 4),
            torch.zeros(BATCH, dtype=torch.int64),
            metadata=[{"number": 0}] * BATCH,
            strength=torch.zeros(BATCH),
        )
    seen, _ = in_processes(
        (watch_together, (open_store, path / "store", 60)),
        (update_together, (open_store, path / "store", 60)),
    )
    assert seen > 1
