"""How rows come into an embedded store and out of it again, within a transaction."""

import sqlite3
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mnemos.stores.base import Schema
from mnemos.stores.directory import ROW_BITS
from mnemos.stores.segments import (
    Layout,
    Rows,
    append,
    checksums,
    create,
    next_capacity,
    parts,
    segment_path,
)


def append_rows(folder: Path, database: sqlite3.Connection, schema: Schema, rows: Rows) -> None:
    """Appends rows to the last segment and to new ones, syncs them, and lists them in the catalogue.

    If the transaction does not commit, the catalogue does not count them, and they are overwritten.
    """
    done = 0
    while done < len(rows.header):
        number, layout, used = _open_segment(folder, database, schema, len(rows.header) - done)
        count = min(layout.capacity - used, len(rows.header) - done)
        for part in parts(count, layout.row_bytes):
            chosen = slice(done + part.start, done + part.stop)
            header = rows.header[chosen].copy()
            piece = Rows(header, rows.keys[chosen], rows.values[chosen])
            header["checksum"] = checksums(piece)
            append(segment_path(folder, number), layout, used + part.start, piece)
        database.execute("UPDATE segments SET rows = ? WHERE number = ?", (used + count, number))
        done += count


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
