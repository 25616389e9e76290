"""Small batches, made durable by the catalogue's own commit.

To sync a segment costs as much as to commit, so a small batch would pay twice. Instead its rows are put
into the catalogue as well, and the segment that they were written to is synced later, once for many
batches. If power is lost before, whoever opens the store for writing next puts them back where they
belong; to do so once more does no harm, since committed rows are never overwritten.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnemos.stores.arguments import KEY_DTYPES
from mnemos.stores.catalogue import schema_from_json
from mnemos.stores.segments import ROW, Layout, Rows, Segment, append, segment_path, sync

SMALL = 1 << 16  # bytes of a batch that is kept here: writing them twice must cost less than a sync
MOST = 1 << 20  # bytes kept here in all


def has_room(database: sqlite3.Connection, size: int) -> bool:
    """Whether a batch of `size` bytes should be kept here."""
    query = "SELECT coalesce(sum(length(content)), 0) FROM journal"
    return size <= SMALL and database.execute(query).fetchone()[0] + size <= MOST


def keep(database: sqlite3.Connection, number: int, start: int, rows: Rows) -> None:
    """Keeps rows that lie in segment `number` from position `start` on, within a transaction."""
    content = torch.cat(_octets(rows)).numpy().tobytes()
    database.execute("INSERT INTO journal VALUES (?, ?, ?, ?)", (number, start, len(rows.header), content))


def settle(folder: Path, database: sqlite3.Connection, written: Iterable[int] = ()) -> None:
    """Syncs the segments of all rows that are kept, and those in `written`, and lets go of the rows."""
    kept = database.execute("SELECT DISTINCT segment FROM journal").fetchall()
    for number in sorted({*written, *(number for (number,) in kept)}):
        sync(segment_path(folder, number))
    if kept:
        database.execute("DELETE FROM journal")


def is_empty(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM journal LIMIT 1").fetchone() is None


def is_lost(folder: Path, database: sqlite3.Connection) -> bool:
    """Whether a segment does not hold rows that are kept: power was cut before it was synced."""
    for path, layout, start, rows in _kept(folder, database):
        found = Segment(path, layout).rows(slice(start, start + len(rows.header)))
        if any(not torch.equal(*pair) for pair in zip(_octets(found), _octets(rows), strict=True)):
            return True
    return False


def restore(folder: Path, database: sqlite3.Connection) -> None:
    """Writes all rows that are kept to their segments again, and settles, within a transaction."""
    for path, layout, start, rows in _kept(folder, database):
        append(path, layout, start, rows)
    settle(folder, database)


def _kept(folder: Path, database: sqlite3.Connection) -> list[tuple[Path, Layout, int, Rows]]:
    """(path and layout of the segment, the first row's position, the rows) of every batch."""
    schema = schema_from_json(database.execute("SELECT schema FROM state").fetchone()[0])
    query = "SELECT segment, row, count, content, capacity FROM journal JOIN segments ON number = segment"
    found = []
    for number, start, count, content, capacity in database.execute(query):
        assert schema is not None
        layout = Layout(schema, capacity)
        found.append((segment_path(folder, number), layout, start, _unpacked(layout, count, content)))
    return found


def _unpacked(layout: Layout, count: int, content: bytes) -> Rows:
    octets = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    header, keys, values = octets.split([count * size for size in layout.widths])
    schema = layout.schema
    return Rows(
        header.numpy().view(ROW),
        keys.clone().view(KEY_DTYPES[schema.key_dtype]).view(count, schema.key_size),
        values.clone().view(layout.value_dtype).view(count, *schema.value_shape),
    )


def _octets(rows: Rows) -> list[Tensor]:
    """The bytes of each column."""
    columns = (torch.tensor(rows.header.view(np.uint8)), rows.keys, rows.values)
    return [column.reshape(-1).view(torch.uint8) for column in columns]
