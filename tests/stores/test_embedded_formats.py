"""Stores of other formats: what an older release wrote is read, what a newer one wrote is refused.

`format_1.zip` holds the folder that `make` below wrote with the release that introduced format 1,
`format_2.zip` with that of format 2, copied before the store was closed: its journal holds rows.
A new format adds its own archive, and a migration to `mnemos.stores.catalogue.MIGRATIONS`.
"""

import contextlib
import sqlite3
import zipfile
from pathlib import Path

import pytest
import torch

import mnemos
from mnemos.stores import catalogue
from mnemos.stores.base import Store, StoreError
from mnemos.testing.records import contents
from mnemos.testing.store_trial import Clock, check_same

ARCHIVES = sorted(Path(__file__).parent.glob("format_*.zip"))


def fill(store: Store, clock: Clock) -> None:
    """Every kind of content, without random numbers, which change from release to release."""
    keys = torch.arange(40.0).view(10, 4) / 8
    ids = store.write(
        keys, torch.arange(20).view(10, 2), metadata=[{"row": row, "æ": [None]} for row in range(10)]
    )
    clock.now += 1
    store.write(
        keys[:3] + 1, torch.ones(3, 2).long(), namespace="Ада", strength=torch.tensor([0.0, 0.5, 2.0])
    )
    clock.now += 1
    store.read(keys[:2], 2)
    store.update(ids[2:4], keys=keys[2:4] * 2, metadata=[None, {"new": True}])
    store.delete(ids[5:7])


def make(path: Path) -> None:
    clock = Clock()
    with mnemos.open(path, metric="euclidean", fingerprint="encoder-1", clock=clock) as store:
        fill(store, clock)


def check(store: Store) -> None:
    """It holds what `fill` writes today, and can be written on."""
    clock = Clock()
    with mnemos.open(":memory:", metric="euclidean", clock=clock) as expected:
        fill(expected, clock)
        check_same(contents(expected), contents(store), "an older store")
        query = torch.full((1, 4), 1.5)
        assert torch.equal(expected.read(query, 5, touch=False).ids, store.read(query, 5, touch=False).ids)
    assert store.stats()["fingerprint"] == "encoder-1"
    assert not store.verify()
    assert store.write(query, torch.zeros(1, 2).long()).tolist() == [13]
    store.compact()
    assert not store.verify()


def set_format(path: Path, number: int) -> None:
    with contextlib.closing(sqlite3.connect(path / "catalogue.sqlite")) as database, database:
        database.execute(f"PRAGMA user_version={number}")


def test_every_format_has_its_archive():
    assert [archive.stem for archive in ARCHIVES] == [f"format_{n + 1}" for n in range(catalogue.FORMAT)]


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.stem)
def test_a_store_of_an_older_release_is_read(tmp_path, archive):
    zipfile.ZipFile(archive).extractall(tmp_path)
    with mnemos.open(tmp_path / "store") as store:
        check(store)
    with mnemos.open(tmp_path / "store", read_only=True) as store:
        assert store.count() == 12


def test_a_store_of_a_newer_release_is_refused(tmp_path):
    make(tmp_path / "store")
    set_format(tmp_path / "store", catalogue.FORMAT + 1)
    with pytest.raises(StoreError, match=rf"format {catalogue.FORMAT + 1}(.|\n)*up to {catalogue.FORMAT}"):
        mnemos.open(tmp_path / "store")
    set_format(tmp_path / "store", catalogue.FORMAT)
    with mnemos.open(tmp_path / "store") as store:
        check(store)


def add_a_table(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE new (one INTEGER)")
    database.execute("UPDATE state SET commits = commits + 1")


def fail_halfway(database: sqlite3.Connection) -> None:
    add_a_table(database)
    raise OSError("the power went")


def upgrade(monkeypatch: pytest.MonkeyPatch, migration) -> None:
    monkeypatch.setattr(catalogue, "MIGRATIONS", [*catalogue.MIGRATIONS, migration])
    monkeypatch.setattr(catalogue, "FORMAT", len(catalogue.MIGRATIONS))


def test_an_older_store_is_migrated_when_it_is_opened(tmp_path, monkeypatch):
    make(tmp_path / "store")
    upgrade(monkeypatch, add_a_table)
    with pytest.raises(StoreError, match=f"older format {catalogue.FORMAT - 1}"):
        mnemos.open(tmp_path / "store", read_only=True)
    with mnemos.open(tmp_path / "store") as store:
        check(store)
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "catalogue.sqlite")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (catalogue.FORMAT,)
        assert database.execute("SELECT count(*) FROM new").fetchone() == (0,)


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    make(tmp_path / "store")
    with monkeypatch.context() as patched:
        upgrade(patched, fail_halfway)
        with pytest.raises(OSError, match="the power went"):
            mnemos.open(tmp_path / "store")
    with mnemos.open(tmp_path / "store") as store:
        check(store)


def test_another_database_is_not_a_store(tmp_path):
    (tmp_path / "store").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "catalogue.sqlite")) as database, database:
        database.execute("CREATE TABLE theirs (one INTEGER)")
    with pytest.raises(StoreError, match="something else"):
        mnemos.open(tmp_path / "store")
