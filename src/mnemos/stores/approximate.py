"""Approximate indexes by faiss: a cache that answers with candidates, never the truth.

An index knows rows by their place. Places grow with time and are never used again, so every row behind
the last one that the index covers is searched exactly, and a candidate whose row has died or moved on is
dropped. Candidates are scored again from the stored keys.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mnemos.stores.base import StoreError
from mnemos.stores.directory import ROW_BITS, Directory
from mnemos.stores.search import nearest
from mnemos.stores.segments import sync_folder

SAMPLE = 200  # records whose nearest ten measure the recall
PROBED = 8  # one list in so many is looked through
_TRAINED_ON = 64  # keys a list


class Candidates(NamedTuple):
    """For every query the ids that the index offers, and the last place that it covers."""

    ids: list[Int[np.ndarray, " found"]]
    covered: int


class Built(NamedTuple):
    """An index that is in memory only."""

    namespace: int
    index: Any
    covered: int
    recall: float


class Indexes:
    """The indexes of a store's namespaces; the one in use is kept in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, Any] = {}

    def build(self, directory: Directory, namespace: str) -> Built:
        """Trains an index of what the namespace holds now; `register` puts it to use."""
        faiss = _faiss()
        schema = directory.schema
        number = directory.namespaces.get(namespace)
        ids = directory.ids({number}) if number is not None else np.empty(0, np.int64)
        if schema is None or number is None or not len(ids):
            raise StoreError(f"namespace {namespace!r} holds nothing to index")
        if schema.metric == "hamming":
            raise StoreError("there is no approximate index of bits; the exact search of them is fast")
        lists = max(1, min(len(ids) // _TRAINED_ON, int(4 * len(ids) ** 0.5)))
        kind = faiss.METRIC_L2 if schema.metric == "euclidean" else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(schema.key_size, f"IVF{lists},SQ8", kind)
        index.nprobe = max(1, min(lists, 8 + lists // PROBED))
        trained_on = np.random.default_rng(0).choice(ids, min(len(ids), _TRAINED_ON * lists), replace=False)
        index.train(_vectors(directory, trained_on))
        for start in range(0, len(ids), 1 << 16):
            part = ids[start : start + (1 << 16)]
            index.add_with_ids(_vectors(directory, part), directory.places(part))
        covered = int(directory.places(ids).max())
        return Built(number, index, covered, self._recall(directory, index, number, ids, covered))

    def register(self, database: sqlite3.Connection, built: Built) -> None:
        """Writes an index and puts it to use, within a transaction that changes the store.

        Without the lock, another process could take the file for what a crash has left, and remove it.
        The file of the index before is removed as just that, later.
        """
        commits = database.execute("SELECT commits FROM state").fetchone()[0]
        file = f"{built.namespace}.{commits:08d}.index"
        _faiss().write_index(built.index, str(self.folder / file))
        with open(self.folder / file, "rb") as written:
            os.fsync(written.fileno())
        sync_folder(self.folder)
        row = (built.namespace, file, built.covered, built.recall)
        database.execute("INSERT OR REPLACE INTO indexes VALUES (?, ?, ?, ?)", row)
        self._loaded = {file: built.index}

    def candidates(
        self,
        directory: Directory,
        database: sqlite3.Connection,
        namespace: str,
        queries: Float[Tensor, "queries keys"],
        k: int,
    ) -> Candidates:
        """What the index of a namespace offers, of what is still in the store."""
        number = directory.namespaces.get(namespace)
        query = "SELECT file, covered FROM indexes WHERE namespace = ?"
        found = database.execute(query, (number,)).fetchone()
        if found is None:
            raise StoreError(f"namespace {namespace!r} has no index; call build_index({namespace!r}) first")
        file, covered = found
        if file not in self._loaded:
            if not (self.folder / file).exists():  # replaced a moment ago: this once, search exactly
                return Candidates([np.empty(0, np.int64)] * len(queries), -1)
            faiss = _faiss()
            self._loaded = {file: faiss.read_index(str(self.folder / file), faiss.IO_FLAG_MMAP)}
        return Candidates(_search(directory, self._loaded[file], queries, k), covered)

    def _recall(
        self, directory: Directory, index: Any, number: int, ids: NDArray[np.int64], covered: int
    ) -> float:
        """How many of the ten truly nearest others of some stored keys are among the index's."""
        sample = np.random.default_rng(1).choice(ids, min(len(ids), SAMPLE), replace=False)
        queries = directory.column("keys", sample).float()
        assert directory.schema is not None

        def lookup(found: NDArray[np.int64]) -> Tensor:
            return directory.column("keys", found)

        metric = directory.schema.metric
        true = nearest(queries, directory.blocks(number), lookup, 11, metric)
        offered = _search(directory, index, queries, 11)
        close = nearest(queries, directory.blocks(number, after=covered), lookup, 11, metric, also=offered)
        hits = total = 0
        for itself, expected, given in zip(sample, true.ids, close.ids, strict=True):
            others = set(expected[expected >= 0].tolist()) - {int(itself)}
            hits += len(others & set(given.tolist()))
            total += len(others)
        return hits / total if total else 1.0

    def namespaces(self, database: sqlite3.Connection, directory: Directory) -> list[str]:
        """Names of the namespaces that have an index."""
        names = {number: name for name, number in directory.namespaces.items()}
        return [names[number] for (number,) in database.execute("SELECT namespace FROM indexes")]

    def stats(self, database: sqlite3.Connection, directory: Directory) -> dict[str, Any]:
        """For every index its measured recall@10, and how many newer records are searched exactly."""
        names = {number: name for name, number in directory.namespaces.items()}
        result = {}
        for number, covered, recall in database.execute("SELECT namespace, covered, recall FROM indexes"):
            newer = int((directory.places(directory.ids({number})) > covered).sum())
            result[names[number]] = {"recall_at_10": recall, "newer_records": newer}
        return result


def _search(directory: Directory, index: Any, queries: Tensor, k: int) -> list[NDArray[np.int64]]:
    """At least `k` living candidates for every query, if the probed lists hold so many."""
    assert directory.schema is not None
    vectors = torch.nn.functional.normalize(queries) if directory.schema.metric == "cosine" else queries
    asked = min(index.ntotal, 4 * k)
    while True:
        _, places = index.search(np.ascontiguousarray(vectors.numpy()), asked)
        alive = _alive(directory, places)
        if asked == index.ntotal or alive.sum(axis=1).min(initial=k) >= k:
            break
        asked = min(index.ntotal, 4 * asked)
    return [_ids_at(directory, row[keep]) for row, keep in zip(places, alive, strict=True)]


def _alive(directory: Directory, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    alive = np.zeros(places.shape, np.bool_)
    for number, part in directory.parts.items():
        here = places >> ROW_BITS == number
        alive[here] = part.alive[places[here] & ((1 << ROW_BITS) - 1)]
    return alive


def _ids_at(directory: Directory, places: NDArray[np.int64]) -> NDArray[np.int64]:
    ids = np.empty(len(places), np.int64)
    for number, part in directory.parts.items():
        here = places >> ROW_BITS == number
        ids[here] = part.ids[places[here] & ((1 << ROW_BITS) - 1)]
    return ids


def _vectors(directory: Directory, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Keys as faiss takes them; of length one where the metric is the cosine."""
    keys = directory.column("keys", ids).float()
    assert directory.schema is not None
    keys = torch.nn.functional.normalize(keys) if directory.schema.metric == "cosine" else keys
    vectors: NDArray[np.float32] = keys.contiguous().numpy()
    return vectors


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise StoreError('an approximate index needs faiss: pip install "mnemos[index]"') from error
    return faiss
