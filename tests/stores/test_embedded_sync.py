"""A loss of power: what was acknowledged is there although nothing survives that was not synced.

A killed process's writes survive in the operating system, so killing cannot show this. Here every write
is watched, and the plug is pulled by copying the store without the bytes that no sync has followed.
SQLite's own files are its own to sync: synchronous=FULL.
"""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mnemos
from mnemos.stores import journal


class Disk:
    """What has been written and not synced since, by path: files' contents and folders' entries."""

    def __init__(self) -> None:
        self.unsynced: set[str] = set()
        self.stretches: dict[str, list[tuple[int, int]]] = {}  # of pwrite: where, and how many bytes
        self.before_each_change = lambda: None
        self.commits: list[tuple[str, set[str]]] = []  # the database, and what was unsynced then

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("pwrite", "write", "ftruncate"):
            self._patch(monkeypatch, name, self._wrote)
        for name in ("fsync", "fdatasync"):
            self._patch(monkeypatch, name, self._synced)
        mkdir, connect = os.mkdir, sqlite3.connect

        def watched_mkdir(path, *given, **named):
            mkdir(path, *given, **named)
            self.unsynced.add(os.path.realpath(Path(path).parent))

        def watched_connect(address, **named):
            connection = connect(address, **named)
            connection.set_trace_callback(lambda statement: self._traced(str(address), statement))
            return connection

        monkeypatch.setattr(os, "mkdir", watched_mkdir)
        monkeypatch.setattr(sqlite3, "connect", watched_connect)
        monkeypatch.setattr("builtins.open", self._opening(open))

    def _patch(self, monkeypatch, name, note) -> None:
        call = getattr(os, name)

        def watched(descriptor, *given):
            self.before_each_change()
            found = call(descriptor, *given)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            note(path, stat.S_ISDIR(os.fstat(descriptor).st_mode))
            if name == "pwrite":
                self.stretches.setdefault(path, []).append((given[1], found))
            return found

        monkeypatch.setattr(os, name, watched)

    def _opening(self, opening):
        def watched(path, mode="r", *given, **named):
            new = "w" in mode and not os.path.exists(path)
            file = opening(path, mode, *given, **named)
            if new:
                self.unsynced |= {os.path.realpath(path), os.path.realpath(Path(path).parent)}
            return file

        return watched

    def _wrote(self, path: str, is_folder: bool) -> None:
        self.unsynced.add(path)

    def _synced(self, path: str, is_folder: bool) -> None:
        self.unsynced.discard(path)
        self.stretches.pop(path, None)

    def pull_the_plug(self, store: Path, remains: Path) -> None:
        """Copies a store as a disk would hold it after power was cut: unsynced bytes are zeros again."""
        shutil.copytree(store, remains, ignore=shutil.ignore_patterns("*-shm"))
        for path, stretches in self.stretches.items():
            if Path(path).parent == Path(os.path.realpath(store)) and (remains / Path(path).name).exists():
                with open(remains / Path(path).name, "r+b") as file:
                    for start, length in stretches:
                        file.seek(start)
                        file.write(bytes(length))

    def _traced(self, address: str, statement: str) -> None:
        if statement.strip().upper().startswith("COMMIT"):
            self.before_each_change()
            self.commits.append((address, set(self.unsynced)))


@pytest.fixture
def disk(monkeypatch, tmp_path):
    disk = Disk()
    disk.watch(monkeypatch)
    return disk


def test_the_watch_sees_what_is_not_synced(disk, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        os.pwrite(file.fileno(), b"x", 0)
        with sqlite3.connect(tmp_path / "database", isolation_level=None) as database:
            database.execute("BEGIN")
            database.execute("COMMIT")
        os.fdatasync(file.fileno())
    database.close()
    real = os.path.realpath(tmp_path)
    assert disk.commits == [(str(tmp_path / "database"), {real, f"{real}/file"})]
    assert disk.unsynced == {real}


def use(folder: Path) -> None:
    with mnemos.open(folder / "store") as store:
        for part in range(4):
            keys = torch.randn(3000, 8)
            ids = store.write(keys, keys, metadata=[{"part": part}] * 3000)
            store.update(ids[::2], keys=keys[::2] + 1)
            store.delete(ids[::3])
        store.compact()
        store.snapshot(folder / "copy")
        store.write(keys, keys)


def late(disk: Disk) -> set[str]:
    """What was not synced when the store's catalogue committed."""
    commits = [unsynced for address, unsynced in disk.commits if "/b/store/" in address]
    assert len(commits) > 12
    return set().union(*commits)


def test_commits_of_many_rows_count_on_nothing_that_is_not_synced(disk, tmp_path):
    use(tmp_path / "a" / "b")
    assert not late(disk)
    assert not disk.unsynced, f"never synced: {disk.unsynced}"


def test_a_store_that_does_not_sync_is_caught(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
    use(tmp_path / "a" / "b")
    assert any(path.endswith(".segment") for path in late(disk))


def changes(store) -> Iterator[None]:
    """Small changes of every kind, one after the other, the same for every store."""
    draw = torch.Generator().manual_seed(0)
    for turn in range(9):
        keys = torch.randn(1 + 19 * turn, 9, generator=draw).half()  # columns that end anywhere
        ids = store.write(keys, keys[:, :3] + 1, metadata=[{"turn": turn}] * len(keys))
        yield
        store.update(ids[:1], values=keys[:1, :3] - 7)
        yield
        if turn % 3 == 2:
            store.delete(ids[-2:])
            yield
        if turn == 5:
            store.compact()
            yield


def survivals(disk: Disk, folder: Path, read_only: bool) -> list[bool]:
    """For a plug pulled before every single thing that a change does: is all there, the change or nothing
    of it?"""
    remains: list[int] = []  # how many changes had been acknowledged

    def pull() -> None:
        disk.before_each_change = lambda: None
        disk.pull_the_plug(folder / "store", folder / f"remains-{len(remains)}")
        remains.append(len(acknowledged) - 1)
        disk.before_each_change = pull

    with mnemos.open(folder / "store") as store, mnemos.open(":memory:") as model:
        acknowledged = [everything(model)]
        for _ in zip(changes(model), changes(store), strict=True):
            acknowledged.append(everything(model))
            pull()
    disk.before_each_change = lambda: None
    found = []
    for number, done in enumerate(remains):
        try:
            with mnemos.open(folder / f"remains-{number}", read_only=read_only) as left:
                found.append(not left.verify() and everything(left) in acknowledged[done : done + 2])
        except mnemos.StoreError:
            found.append(False)
    return found


def everything(store) -> list[list]:
    """Bit for bit, and comparable."""
    records = store.get(store.ids())
    bits = [column.contiguous().view(torch.uint8).tolist() for column in (records.keys, records.values)]
    return [records.ids.tolist(), *(bits if len(records.ids) else []), records.metadata]


@pytest.mark.parametrize("read_only", [False, True])
def test_small_batches_survive_a_loss_of_power(disk, tmp_path, monkeypatch, read_only):
    monkeypatch.setattr(journal, "MOST", 6000)  # so that it fills, and is settled, several times
    assert all(survivals(disk, tmp_path, read_only))


def test_a_store_that_forgets_to_keep_small_batches_is_caught(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "keep", lambda *given: None)
    assert not all(survivals(disk, tmp_path, False))


def test_a_store_that_never_puts_back_what_it_kept_is_caught(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "is_lost", lambda *given: False)
    assert not all(survivals(disk, tmp_path, False))


def test_a_closed_store_keeps_nothing_in_its_journal(disk, tmp_path):
    with mnemos.open(tmp_path / "store") as store:
        store.write(torch.randn(3, 4), torch.arange(3))
        assert disk.stretches
    assert not disk.stretches
    with sqlite3.connect(tmp_path / "store" / "catalogue.sqlite") as database:
        assert journal.is_empty(database)
    database.close()
