"""The embedded store: a folder that any number of processes may read and one at a time write.

    catalogue.sqlite      what is not of fixed width, and which rows count; its commit is the acknowledgement
    00000001.segment ...  records of fixed width
    1.00000007.index      an approximate index: a cache

A write appends rows, syncs them, and then commits them to the catalogue, so a committed row is always
complete; few rows are kept in the catalogue's journal instead, and synced later. An overwrite appends a
new row and declares the old one dead. A crash leaves rows that nobody committed, which the next write
overwrites, or files that nobody committed, which the next opening for writing removes.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from mnemos.retention.policy import Policy, order_of_departure
from mnemos.stores import arguments, journal, maintenance
from mnemos.stores.approximate import Indexes
from mnemos.stores.base import (
    DEFAULT_NAMESPACE,
    Hits,
    Metric,
    Records,
    Schema,
    Store,
    StoreBusyError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
)
from mnemos.stores.catalogue import FORMAT, Catalogue
from mnemos.stores.directory import Directory
from mnemos.stores.exact import unpack_bits
from mnemos.stores.filters import parse, parse_read
from mnemos.stores.reading import Reader, no_hits
from mnemos.stores.segments import Rows
from mnemos.stores.usage import ReadCounts
from mnemos.stores.writing import append_rows, bury, insert, keep_metadata, prepare, remove

CATALOGUE = "catalogue.sqlite"


@final
class EmbeddedStore(Store):
    """Durable records in a folder; see `Store` for the verbs and their contract.

    One object may be used from several threads, which wait for each other. It must not be carried over
    a fork: open the store anew in the child.

    Args:
        path: the folder; made if it is not there, unless `read_only`.
        metric: how keys are compared; checked against the store's own if it has one.
        fingerprint: names the model whose keys these are; checked against the store's own.
        read_only: refuse every change, usage counts included.
        clock: the time in seconds.
        busy_seconds: how long a change waits for another process's to end.
        scratch_bytes: bounds what a search holds in memory at once, beside about 35 bytes a record for the
            directory (64 MiB).
    """

    def __init__(
        self,
        path: str | Path,
        *,
        metric: Metric | None = None,
        fingerprint: str | None = None,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
        busy_seconds: float = 30.0,
        scratch_bytes: int = 1 << 26,
    ) -> None:
        self.path = Path(path)
        self._read_only, self._clock = read_only, clock
        self._lock = threading.RLock()
        self._closed = False
        maintenance.check_folder(self.path, CATALOGUE, read_only)
        self._catalogue = Catalogue(self.path / CATALOGUE, read_only=read_only, busy_seconds=busy_seconds)
        try:
            self._metric, self.fingerprint = self._catalogue.claim(metric, fingerprint)
            maintenance.heal(self.path, self._catalogue, busy_seconds)
            if not read_only:
                maintenance.remove_orphans(self.path, self._catalogue, patient=False)
        except BaseException:
            self._catalogue.close()
            raise
        self._directory = Directory(self.path)
        self._reads = ReadCounts()
        self._reader = Reader(self._directory, self._catalogue.connection, self._reads, scratch_bytes)
        self._indexes = Indexes(self.path)

    @property
    def schema(self) -> Schema | None:
        with self._reading():
            return self._directory.schema

    @property
    def metric(self) -> Metric | None:
        schema = self.schema
        return schema.metric if schema else self._metric

    @property
    def revision(self) -> int:
        with self._lock:
            self._check_open()
            return self._catalogue.commits()

    # --- changing ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction in which this process is the only one that changes the store."""
        with self._lock:
            self._check_open()
            if self._read_only:
                raise StoreError("the store was opened with read_only=True")
            with self._catalogue.transaction() as database:
                self._directory.load(database)
                yield database
                database.execute("UPDATE state SET commits = commits + 1")

    def write(
        self,
        keys: Shaped[Tensor, "records keys"],
        values: Shaped[Tensor, "records *value"],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> Int[Tensor, " records"]:
        namespace = arguments.prepare_namespace(namespace)
        with self._changing() as database:
            given = keys, values, metadata, strength
            schema, batch = prepare(database, self._directory, self._metric, *given)
            ids = np.arange(self._directory.next_id, self._directory.next_id + len(batch.keys))
            insert(database, self._directory, schema, batch, ids, self._clock(), [namespace] * len(ids))
            database.execute("UPDATE state SET next_id = next_id + ?", (len(ids),))
        return torch.from_numpy(ids)

    def adopt(self, records: Records, next_id: int) -> None:
        """Takes records over from another store as they are, ids, times and reads included.

        Args:
            records: by ascending id, and later than every id that was given out here.
            next_id: what the next record written will be called; above all of these.

        Raises:
            ValueError: ids that do not fit, or as `write`; nothing is written.
        """
        with self._changing() as database:
            usage, ids = records.usage, records.ids.numpy()
            if (np.diff([self._directory.next_id - 1, *ids, next_id]) <= 0).any():
                raise ValueError(
                    f"ids must ascend from {self._directory.next_id} on, and next_id be above all of them"
                )
            given = records.keys, records.values, records.metadata, usage.strength
            schema, batch = prepare(database, self._directory, self._metric, *given)
            written_at = usage.written_at.numpy()
            insert(database, self._directory, schema, batch, ids, written_at, records.namespaces)
            reads = zip(ids.tolist(), usage.last_read.tolist(), usage.times_read.tolist(), strict=True)
            database.executemany("INSERT INTO usage VALUES (?, ?, ?)", (row for row in reads if row[2]))
            database.execute("UPDATE state SET next_id = ?", (next_id,))

    def update(
        self,
        ids: Int[Tensor, " records"],
        *,
        keys: Shaped[Tensor, "records keys"] | None = None,
        values: Shaped[Tensor, "records *value"] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> None:
        chosen = arguments.prepare_ids(ids, unique=True).numpy()
        with self._changing() as database:
            places = self._reader.find(chosen)
            schema = self._directory.schema
            if schema is None:
                return  # nothing was ever written, so there are no ids
            changes = arguments.prepare_update(schema, len(chosen), keys, values, metadata, strength)
            if changes.metadata is not None:
                keep_metadata(database, chosen, changes.metadata, replace=True)
            if changes.keys is None and changes.values is None and changes.strength is None:
                return
            header = self._directory.headers(chosen)
            if changes.strength is not None:
                header["strength"] = changes.strength.numpy()
            new_keys = self._directory.column("keys", chosen) if changes.keys is None else changes.keys
            new_values = (
                self._directory.column("values", chosen) if changes.values is None else changes.values
            )
            append_rows(self.path, database, schema, Rows(header, new_keys, new_values))
            bury(database, places)

    def delete(
        self, ids: Int[Tensor, " records"] | None = None, *, where: Mapping[str, Any] | None = None
    ) -> int:
        if (ids is None) == (where is None):
            raise ValueError("delete needs either ids or where, and not both (where={} is every record)")
        with self._changing() as database:
            if ids is not None:
                chosen = arguments.prepare_ids(ids, unique=True).numpy()
            else:
                chosen = self._reader.select(parse(where))
            self._remove(database, chosen)
        return len(chosen)

    def evict(
        self, policy: Policy, keep: int, *, where: Mapping[str, Any] | None = None
    ) -> Int[Tensor, " records"]:
        arguments.check_keep(keep)
        with self._changing() as database:
            self._reads.save(database)
            chosen = self._reader.select(parse(where))
            keys = torch.empty(len(chosen), 0)
            if policy.reads_keys and self._directory.schema is not None:
                keys = self._directory.column("keys", chosen)
                keys = unpack_bits(keys) if keys.dtype == torch.uint8 else keys
            order = order_of_departure(policy, self._reader.usage(chosen), keys, self._clock())
            leaving = np.sort(chosen[order[: max(0, len(chosen) - keep)].numpy()])
            self._remove(database, leaving)
        return torch.from_numpy(leaving)

    def _remove(self, database: sqlite3.Connection, ids: NDArray[np.int64]) -> None:
        remove(database, self._reader.find(ids), ids)
        self._reads.forget(ids)

    # --- reading ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees the store as of one moment, whatever other processes commit meanwhile."""
        with self._lock, contextlib.ExitStack() as stack:
            self._check_open()
            for _ in range(100):
                database = stack.enter_context(self._catalogue.transaction(write=False))
                try:
                    self._directory.load(database)
                    break
                except FileNotFoundError as error:  # compacted away between our look and our opening it
                    missing = error.filename
                    stack.close()
            else:
                raise StoreDamagedError(f"{missing} is missing, which the catalogue of {self.path} names")
            yield database

    def read(
        self,
        queries: Shaped[Tensor, "queries keys"],
        k: int = 32,
        *,
        where: Mapping[str, Any] | None = None,
        approximate: bool = False,
        touch: bool = True,
    ) -> Hits:
        arguments.check_k(k)
        namespace, rest = parse_read(where, DEFAULT_NAMESPACE)
        with self._reading():
            schema = self._directory.schema
            if schema is None:
                return no_hits(len(queries), k)
            vectors = arguments.prepare_queries(schema, queries)
            if approximate and rest.conditions:
                raise ValueError("an approximate read can filter by namespace only")
            indexes = self._indexes if approximate else None
            found = self._reader.nearest(vectors, k, namespace, rest, indexes)
            hits = self._reader.hits(found)
            if touch and not self._read_only:
                self._reads.add(found.ids[found.ids >= 0], self._clock())
        if self._reads.full:
            self.flush()
        return hits

    def gather(self, ids: Int[Tensor, " records"]) -> tuple[Tensor, Tensor]:
        with self._reading():
            return self._reader.columns(arguments.prepare_ids(ids).numpy())

    def get(self, ids: Int[Tensor, " records"]) -> Records:
        with self._reading():
            return self._reader.records(arguments.prepare_ids(ids).numpy())

    def ids(self, where: Mapping[str, Any] | None = None) -> Int[Tensor, " records"]:
        with self._reading():
            return torch.from_numpy(self._reader.select(parse(where)))

    def count(self, where: Mapping[str, Any] | None = None) -> int:
        return len(self.ids(where))

    def namespaces(self) -> list[str]:
        with self._reading():
            return sorted(self._directory.counts())

    # --- keeping ----------------------------------------------------------------------------------

    def build_index(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        namespace = arguments.prepare_namespace(namespace)
        with self._lock:
            with self._reading():
                index = self._indexes.build(self._directory, namespace)
            with self._changing() as database:
                self._indexes.register(database, index)

    def compact(self) -> int:
        before = maintenance.bytes_on_disk(self.path)
        with self._changing() as database:
            stale = self._indexes.namespaces(database, self._directory)
            if maintenance.rewrite(self._directory, database):
                database.execute("DELETE FROM indexes")  # they hold what is to be erased
            else:
                stale = []
        with self._lock:
            maintenance.remove_orphans(self.path, self._catalogue, patient=True)
            self._catalogue.erase()
            for namespace in stale:
                if self.count({"namespace": namespace}):
                    self.build_index(namespace)
        return before - maintenance.bytes_on_disk(self.path)

    def verify(self) -> list[str]:
        try:
            with self._reading() as database:
                return [*self._catalogue.faults(), *maintenance.faults(self._directory, database)]
        except StoreDamagedError as error:  # so damaged that nothing can be read
            return [str(error)]

    def snapshot(self, path: str | Path) -> None:
        with self._lock:
            self._check_open()
            if not self._read_only:
                self.flush()
            maintenance.copy(self.path, self._catalogue, CATALOGUE, Path(path))

    def stats(self) -> dict[str, Any]:
        with self._reading():
            counts = self._directory.counts()
            rows = sum(part.rows for part in self._directory.parts.values())
            schema = self._directory.schema
            return {
                "records": sum(counts.values()),
                "namespaces": counts,
                "bytes": maintenance.bytes_on_disk(self.path),
                "dead_rows": rows - sum(counts.values()),
                "segments": len(self._directory.parts),
                "indexes": self._indexes.stats(self._catalogue.connection, self._directory),
                "format": FORMAT,
                "schema": asdict(schema) if schema else None,
                "fingerprint": self.fingerprint,
            }

    def flush(self) -> None:
        with self._lock:
            self._check_open()
            if self._reads.pending and not self._read_only:
                with self._catalogue.transaction() as database:
                    self._reads.save(database)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                self.flush()
                self._settle()
            finally:
                self._closed = True
                self._catalogue.close()
                self._directory.parts.clear()  # lets go of the mapped files

    def _settle(self) -> None:
        """Leaves no rows in the journal, unless another process goes on writing."""
        if not self._read_only and not journal.is_empty(self._catalogue.connection):
            with (
                contextlib.suppress(StoreBusyError),
                self._catalogue.transaction(patient=False) as database,
            ):
                journal.settle(self.path, database)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store has been closed")
