"""How rows come into an embedded store and out of it again, within a transaction."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mnemos.stores import arguments, journal
from mnemos.stores.base import Metric, Schema
from mnemos.stores.catalogue import schema_to_json
from mnemos.stores.directory import ROW_BITS, Directory
from mnemos.stores.segments import (
    ROW,
    Layout,
    Rows,
    append,
    checksums,
    create,
    next_capacity,
    parts,
    segment_path,
)


def prepare(
    database: sqlite3.Connection, directory: Directory, metric: Metric | None, *given: Any
) -> tuple[Schema, arguments.Batch]:
    """Checks a batch, given as keys, values, metadata and strength; the first one fixes the schema."""
    schema, batch = arguments.prepare_write(directory.schema, metric, *given)
    if directory.schema is None:
        fixed = (schema_to_json(schema), schema.metric)
        database.execute("UPDATE state SET schema = ?, metric = ?", fixed)
    return schema, batch


def insert(
    database: sqlite3.Connection,
    directory: Directory,
    schema: Schema,
    batch: arguments.Batch,
    ids: Int[np.ndarray, " records"],
    written_at: float | Float[np.ndarray, " records"],
    namespaces: Sequence[str],
) -> None:
    """Adds new records, whose namespaces are given numbers if they are new."""
    numbers = {name: _number(database, directory, name) for name in set(namespaces)}
    header = np.zeros(len(ids), ROW)
    header["id"], header["written_at"], header["strength"] = ids, written_at, batch.strength.numpy()
    header["namespace"] = [numbers[name] for name in namespaces]
    append_rows(directory.folder, database, schema, Rows(header, batch.keys, batch.values))
    keep_metadata(database, ids, batch.metadata)


def _number(database: sqlite3.Connection, directory: Directory, name: str) -> int:
    if name in directory.namespaces:
        return directory.namespaces[name]
    number = database.execute("INSERT INTO namespaces (name) VALUES (?)", (name,)).lastrowid
    assert number is not None
    return number


def keep_metadata(
    database: sqlite3.Connection,
    ids: Int[np.ndarray, " records"],
    texts: Sequence[str | None],
    replace: bool = False,
) -> None:
    if replace:
        database.executemany("DELETE FROM metadata WHERE id = ?", zip(ids.tolist()))
    pairs = [(id_, text) for id_, text in zip(ids.tolist(), texts, strict=True) if text is not None]
    if pairs:
        database.executemany("INSERT INTO metadata VALUES (?, ?)", pairs)


def remove(
    database: sqlite3.Connection, places: Int[np.ndarray, " records"], ids: Int[np.ndarray, " records"]
) -> None:
    """Deletes records: their rows are buried, what the catalogue says of them goes."""
    bury(database, places)
    given = (json.dumps(ids.tolist()),)
    for table in ("metadata", "usage"):
        database.execute(f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", given)


def append_rows(folder: Path, database: sqlite3.Connection, schema: Schema, rows: Rows) -> None:
    """Appends rows to the last segment and to new ones, and lists them in the catalogue.

    Its commit makes them durable: they are synced here, or, if they are few, kept in the journal. If the
    transaction does not commit, the catalogue does not count them, and they are overwritten.
    """
    few = journal.has_room(database, len(rows.header) * Layout(schema, 1).row_bytes)
    written, done = set(), 0
    while done < len(rows.header):
        number, layout, used = _open_segment(folder, database, schema, len(rows.header) - done)
        count = min(layout.capacity - used, len(rows.header) - done)
        for part in parts(count, layout.row_bytes):
            chosen = slice(done + part.start, done + part.stop)
            header = rows.header[chosen].copy()
            piece = Rows(header, rows.keys[chosen], rows.values[chosen])
            header["checksum"] = checksums(piece)
            append(segment_path(folder, number), layout, used + part.start, piece)
            if few:
                journal.keep(database, number, used + part.start, piece)
        database.execute("UPDATE segments SET rows = ? WHERE number = ?", (used + count, number))
        written.add(number)
        done += count
    if not few:
        journal.settle(folder, database, written)


def _open_segment(
    folder: Path, database: sqlite3.Connection, schema: Schema, rows: int
) -> tuple[int, Layout, int]:
    """The segment that takes the next rows, its layout, and how many it has: the newest, or a new one.

    Never an older one, though it may have room: places must grow with time, by which an index knows
    what it has not seen.
    """
    newest = database.execute(
        """SELECT number, capacity, rows FROM segments
        WHERE number = (SELECT seq FROM sqlite_sequence WHERE name = 'segments')"""
    ).fetchone()
    if newest and newest[2] < newest[1]:
        return newest[0], Layout(schema, newest[1]), newest[2]
    layout = Layout(schema, next_capacity(rows, newest[1] if newest else 0))
    number = database.execute(
        "INSERT INTO segments (capacity, rows) VALUES (?, 0)", (layout.capacity,)
    ).lastrowid
    assert number is not None
    create(segment_path(folder, number), layout)
    return number, layout, 0


def bury(database: sqlite3.Connection, places: Int[np.ndarray, " records"]) -> None:
    """Declares rows dead: they stay in their segment until it is rewritten, and are never returned."""
    numbers, rows = places >> ROW_BITS, places & ((1 << ROW_BITS) - 1)
    database.executemany(
        "INSERT INTO dead (segment, row) VALUES (?, ?)", zip(numbers.tolist(), rows.tolist(), strict=True)
    )
