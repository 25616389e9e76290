"""The laws that only a store on disk can break find the faults that they are there to find."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mnemos
from mnemos.stores.base import Store
from mnemos.stores.ram import RamStore
from mnemos.testing import store_lasting_laws as lasting
from mnemos.testing import store_sharing_laws as sharing
from mnemos.testing.faulty_stores import PassingStore

FAULT = (AssertionError, pytest.fail.Exception)


class ForgettingToErase(PassingStore):
    """Says that it has compacted."""

    def compact(self) -> int:
        return 1


class LinkingStore(PassingStore):
    """Takes a snapshot that goes on changing."""

    def snapshot(self, path: Any) -> None:
        Path(path).symlink_to(self.store.path)


class HalvingStore(PassingStore):
    """Writes a batch as two, and updates vectors and metadata one after the other."""

    def write(self, keys: Tensor, values: Tensor, *, metadata: Any = None, **options: Any) -> Tensor:
        half = len(keys) // 2
        parts = (slice(0, half), slice(half, None))
        options |= {"strength": None}
        return torch.cat(
            [
                self.store.write(
                    keys[part], values[part], metadata=(metadata or [None] * len(keys))[part], **options
                )
                for part in parts
            ]
        )

    def update(self, ids: Tensor, *, metadata: Any = None, **changes: Any) -> None:
        self.store.update(ids, **changes)
        self.store.update(ids, metadata=metadata)


def lazy(path: Path, **options: Any) -> Store:
    return ForgettingToErase(mnemos.open(path, **options))


def linking(path: Path, **options: Any) -> Store:
    return LinkingStore(mnemos.open(path, **options))


def halving(path: Path, **options: Any) -> Store:
    return HalvingStore(mnemos.open(path, **options))


def fleeting(path: Path, **options: Any) -> Store:
    return RamStore(**options)


def careless(path: Path, *, fingerprint: Any = None, **options: Any) -> Store:
    return mnemos.open(path, **options)


def writable(path: Path, *, read_only: bool = False, **options: Any) -> Store:
    return mnemos.open(path, **options)


@pytest.mark.parametrize(
    ("faulty", "law", "given"),
    [
        (fleeting, lasting.reopened, ("cosine", torch.float16)),
        (fleeting, lasting.not_closed, ()),
        (careless, lasting.opened_as_what_it_is, ()),
        (writable, lasting.opened_as_what_it_is, ()),
        (halving, sharing.shared_between_processes, ()),
        (halving, sharing.one_moment, ()),
        (lazy, lasting.erased, ()),
        (linking, lasting.snapshots, ()),
    ],
)
def test_a_faulty_store_is_found_out(tmp_path: Path, faulty: Any, law: Any, given: tuple):
    with pytest.raises(FAULT):
        law(faulty, tmp_path, *given)


def test_what_is_looked_for_is_found_in_files(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(os.urandom(100) + b"secret" + os.urandom(100))
    assert lasting.occurrences(tmp_path, [b"secret", b"absent"]) == ["file holds b'secret'"]
