"""The store in RAM keeps the laws of stores."""

from pathlib import Path
from typing import Any

import pytest
import torch

import mnemos
from mnemos.stores.base import Store, StoreError
from mnemos.testing.records import contents
from mnemos.testing.store_suite import StoreSuite
from mnemos.testing.store_trial import Clock, check_same, fill


class TestRamStore(StoreSuite):
    durable = False

    def open(self, path: Path, **options: Any) -> Store:
        return mnemos.open(":memory:", **options)


def test_writing_to_a_read_only_store_is_refused():
    with mnemos.open(":memory:", read_only=True) as store:
        with pytest.raises(StoreError, match="read_only"):
            store.write(torch.ones(1, 2), torch.ones(1))
        assert store.count() == 0


def test_a_server_is_not_a_path():
    with pytest.raises(StoreError, match="embedded store"):
        mnemos.open("postgresql://host/name")


def test_a_snapshot_is_an_embedded_store_of_the_same_records(tmp_path):
    clock = Clock()
    with mnemos.open(":memory:", metric="euclidean", fingerprint="encoder-1", clock=clock) as store:
        ids = fill(store)
        clock.now += 5
        fill(store, namespace="ada")
        store.read(torch.ones(3, 5), 4)
        store.delete(torch.cat([ids[3:6], store.ids()[-2:]]))
        store.snapshot(tmp_path / "copy")
        with mnemos.open(tmp_path / "copy", fingerprint="encoder-1") as copied:
            assert copied.schema == store.schema
            check_same(contents(store), contents(copied), "the copy")
            assert not copied.verify()
            assert torch.equal(fill(copied), fill(store)), "an id was reused"
        with pytest.raises(FileExistsError):
            store.snapshot(tmp_path / "copy")


def test_a_snapshot_of_nothing_is_a_store_of_nothing(tmp_path):
    with mnemos.open(":memory:") as store:
        store.snapshot(tmp_path / "copy")
    with mnemos.open(tmp_path / "copy") as copied:
        assert copied.schema is None
