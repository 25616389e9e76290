"""What one process knows of a store's rows: where each record lies, and which rows still count.

It is a cache of the catalogue and the segments' headers, about 35 bytes a record, filled when it is
first needed and brought up to date whenever any process has committed.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from mnemos.stores.arguments import KEY_DTYPES
from mnemos.stores.base import Schema, StoreDamagedError
from mnemos.stores.catalogue import schema_from_json
from mnemos.stores.search import Block, Blocks, lengths_of
from mnemos.stores.segments import ROW, Layout, Segment, segment_path

NOTHING = np.empty(0, np.int64)
ROW_BITS = 32  # a place is a segment's number and a row in it, in one integer that grows with time


class Part:
    """A segment and what is known of its committed rows."""

    def __init__(self, segment: Segment) -> None:
        capacity = segment.layout.capacity
        self.segment = segment
        self.rows = 0
        self.ids = np.empty(capacity, np.int64)
        self.namespaces = np.empty(capacity, np.int32)
        self.alive = np.zeros(capacity, np.bool_)
        self._lengths = np.empty(capacity if segment.keys.is_floating_point() else 0)
        self._measured = 0

    def extend(self, rows: int, next_id: int) -> NDArray[np.int64]:
        """Takes in rows that have been committed since, and returns their positions."""
        new = slice(self.rows, rows)
        header = self.segment.header[new]
        if not ((header["id"] >= 0) & (header["id"] < next_id)).all():
            raise StoreDamagedError(f"{self.segment.path} names ids that were never given out")
        self.ids[new], self.namespaces[new], self.alive[new] = header["id"], header["namespace"], True
        self.rows = rows
        return np.arange(new.start, rows)

    def lengths(self, start: int, stop: int) -> NDArray[np.float64]:
        """Euclidean lengths of keys, measured once; empty for bits."""
        while self._lengths.size and self._measured < stop:
            part = slice(self._measured, min(self._measured + (1 << 14), self.rows))
            self._lengths[part] = lengths_of(self.segment.keys[part].float())
            self._measured = part.stop
        return self._lengths[start:stop]


class Directory:
    """Where everything is, as of the last `load`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commits = -1
        self.schema: Schema | None = None
        self.next_id = 0
        self.namespaces: dict[str, int] = {}
        self.parts: dict[int, Part] = {}  # by number of the segment, ascending
        self._places = np.empty(0, np.int64)  # by id; -1 where there is no record
        self._dead = 0  # the last sequence number seen

    def load(self, database: sqlite3.Connection) -> None:
        """Brings everything up to date; to be called within a transaction.

        Raises:
            FileNotFoundError: a segment has gone, since another process has compacted the store; load again.
            StoreDamagedError: a segment is not what the catalogue says.
        """
        schema, next_id, commits = database.execute("SELECT schema, next_id, commits FROM state").fetchone()
        if commits == self.commits:
            return
        self.schema = schema_from_json(schema)
        self.namespaces = dict(database.execute("SELECT name, number FROM namespaces"))
        self._reserve(next_id)
        listed = database.execute("SELECT number, capacity, rows FROM segments").fetchall()
        fresh = self._load_segments(listed, next_id)
        self._load_dead(database)
        for number, rows in fresh:
            part = self.parts[number]
            alive = rows[part.alive[rows]]
            self._places[part.ids[alive]] = (number << ROW_BITS) + alive
        self.next_id, self.commits = next_id, commits

    def _reserve(self, next_id: int) -> None:
        if next_id > len(self._places):
            larger = np.full(max(next_id, 2 * len(self._places)), -1, np.int64)
            larger[: len(self._places)] = self._places
            self._places = larger

    def _load_segments(
        self, listed: list[tuple[int, int, int]], next_id: int
    ) -> list[tuple[int, NDArray[np.int64]]]:
        """Maps new segments, drops the ones that were compacted away, and says which rows are new."""
        opened = {}
        for number, capacity, _ in listed:
            if number not in self.parts:
                assert self.schema is not None
                layout = Layout(self.schema, capacity)
                opened[number] = Part(Segment(segment_path(self.folder, number), layout))
        gone = self.parts.keys() - {number for number, *_ in listed}
        if gone:
            self._places[np.isin(self._places >> ROW_BITS, list(gone))] = -1
        self.parts = {number: self.parts.get(number) or opened[number] for number, *_ in sorted(listed)}
        return [
            (number, self.parts[number].extend(rows, next_id))
            for number, _, rows in listed
            if rows > self.parts[number].rows
        ]

    def _load_dead(self, database: sqlite3.Connection) -> None:
        found = database.execute(
            "SELECT sequence, segment, row FROM dead WHERE sequence > ? ORDER BY sequence", (self._dead,)
        ).fetchall()
        if not found:
            return
        self._dead = found[-1][0]
        dead = np.array(found, np.int64)[:, 1:]
        for number in np.unique(dead[:, 0]).tolist():
            part, rows = self.parts[number], dead[dead[:, 0] == number, 1]
            part.alive[rows] = False
            ids = part.ids[rows]
            ids = ids[self._places[ids] == (number << ROW_BITS) + rows]  # not where the record has moved on
            self._places[ids] = -1

    def places(self, ids: Int[np.ndarray, " records"]) -> NDArray[np.int64]:
        """Where records lie; -1 for an id that is not in the store."""
        known = (ids >= 0) & (ids < self.next_id)
        return np.where(known, self._places[np.where(known, ids, 0)] if self.next_id else -1, -1)

    def headers(self, ids: Int[np.ndarray, " records"]) -> np.ndarray:
        """Copies of the headers of records that are in the store, in their order."""
        found = np.empty(len(ids), ROW)
        for part, chosen, rows in self._split(ids):
            found[chosen] = part.segment.header[rows]
        return found

    def column(self, name: str, ids: Int[np.ndarray, " records"]) -> Tensor:
        """Copies of one column, "keys" or "values", of records that are in the store, in their order."""
        pieces, order = [], []
        for part, chosen, rows in self._split(ids):
            pieces.append(getattr(part.segment, name).index_select(0, torch.from_numpy(rows)))
            order.append(chosen)
        if not pieces:
            assert self.schema is not None
            return empty_column(self.schema, name)
        if len(pieces) == 1:
            return pieces[0]
        back = np.argsort(np.concatenate(order))
        return torch.cat(pieces).index_select(0, torch.from_numpy(back))

    def _split(
        self, ids: Int[np.ndarray, " records"]
    ) -> Iterator[tuple[Part, NDArray[np.int64], NDArray[np.int64]]]:
        """By segment: which of the records lie there, and in which rows."""
        places = self.places(ids)
        numbers, rows = places >> ROW_BITS, places & ((1 << ROW_BITS) - 1)
        for number in sorted(set(numbers.tolist())):
            chosen = np.flatnonzero(numbers == number)
            yield self.parts[number], chosen, rows[chosen]

    def ids(self, namespaces: set[int] | None = None) -> NDArray[np.int64]:
        """Ids of the records in these namespaces, or in all of them, ascending."""
        found = [part.ids[: part.rows][self._fitting(part, namespaces)] for part in self.parts.values()]
        return np.sort(np.concatenate([*found, np.empty(0, np.int64)]))

    def counts(self) -> dict[str, int]:
        """Records in each namespace that holds any."""
        names = {number: name for name, number in self.namespaces.items()}
        total = np.zeros(max(names, default=0) + 1, np.int64)
        for part in self.parts.values():
            alive = part.namespaces[: part.rows][part.alive[: part.rows]]
            total += np.bincount(alive, minlength=len(total))
        return {names[number]: int(total[number]) for number in sorted(names) if total[number]}

    def _fitting(self, part: Part, namespaces: set[int] | None) -> Bool[np.ndarray, " rows"]:
        alive = part.alive[: part.rows]
        if namespaces is None:
            return alive
        if len(namespaces) == 1:
            return alive & (part.namespaces[: part.rows] == next(iter(namespaces)))
        return alive & np.isin(part.namespaces[: part.rows], list(namespaces))

    def blocks(self, namespace: int, after: int = -1) -> Blocks:
        """The rows of a namespace, for a search; only those that lie behind the place `after`."""

        def walk(most: int) -> Iterator[Block]:
            for number, part in self.parts.items():
                fitting = self._fitting(part, {namespace})
                first = max(0, after + 1 - (number << ROW_BITS))
                for start in range(first, part.rows, most):
                    block = _block(part, fitting, start, min(start + most, part.rows))
                    if block is not None:
                        yield block

        return walk

    def blocks_of(self, ids: Int[np.ndarray, " records"]) -> Blocks:
        """Only these records, for a search."""
        places = np.sort(self.places(ids))

        def walk(most: int) -> Iterator[Block]:
            for number, part in self.parts.items():
                rows = places[places >> ROW_BITS == number] & ((1 << ROW_BITS) - 1)
                for start in range(0, len(rows), most):
                    yield _gathered(part, rows[start : start + most])

        return walk


def empty_column(schema: Schema, name: str) -> Tensor:
    """No keys or no values, of the right shape and dtype."""
    layout = Layout(schema, 1)
    if name == "keys":
        return torch.empty(0, schema.key_size, dtype=KEY_DTYPES[schema.key_dtype])
    return torch.empty(0, *schema.value_shape, dtype=layout.value_dtype)


def _gathered(part: Part, rows: NDArray[np.int64]) -> Block:
    keys = part.segment.keys.index_select(0, torch.from_numpy(rows))
    lengths = part.lengths(0, part.rows)
    return Block(keys, part.ids[rows], lengths[rows] if lengths.size else lengths, NOTHING)


def _block(part: Part, fitting: Bool[np.ndarray, " rows"], start: int, stop: int) -> Block | None:
    """Rows as they lie, where most of them fit; else copies of those that do."""
    inside = fitting[start:stop]
    count = int(np.count_nonzero(inside))
    if 4 * count < len(inside):
        return _gathered(part, start + np.flatnonzero(inside)) if count else None
    hidden = np.flatnonzero(~inside) if count < len(inside) else NOTHING
    return Block(part.segment.keys[start:stop], part.ids[start:stop], part.lengths(start, stop), hidden)
