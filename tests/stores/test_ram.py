"""The store in RAM keeps the laws of stores."""

from pathlib import Path
from typing import Any

import pytest
import torch

import mnemos
from mnemos.stores.base import Store, StoreError
from mnemos.testing.store_suite import StoreSuite


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
