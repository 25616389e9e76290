"""A loss of power: whatever a commit counts on has been synced before it.

A killed process's writes survive in the operating system, so killing cannot show this; the order of the
calls can. SQLite's own files are its own to sync: synchronous=FULL.
"""

import os
import sqlite3
import stat
from pathlib import Path

import pytest
import torch

import mnemos


class Disk:
    """What has been written and not synced since, by path: files' contents and folders' entries."""

    def __init__(self) -> None:
        self.unsynced: set[str] = set()
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
            found = call(descriptor, *given)
            note(os.readlink(f"/proc/self/fd/{descriptor}"), stat.S_ISDIR(os.fstat(descriptor).st_mode))
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

    def _traced(self, address: str, statement: str) -> None:
        if statement.strip().upper().startswith("COMMIT"):
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


def test_commits_count_on_nothing_that_is_not_synced(disk, tmp_path):
    use(tmp_path / "a" / "b")
    assert not late(disk)
    assert not disk.unsynced, f"never synced: {disk.unsynced}"


def test_a_store_that_does_not_sync_is_caught(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)
    use(tmp_path / "a" / "b")
    assert any(path.endswith(".segment") for path in late(disk))
