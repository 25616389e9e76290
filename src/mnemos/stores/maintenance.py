"""Compaction, verification and copies of an embedded store."""

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import numpy as np

from mnemos.stores import journal
from mnemos.stores.base import StoreBusyError, StoreDamagedError, StoreError
from mnemos.stores.catalogue import Catalogue, schema_from_json
from mnemos.stores.directory import Directory, Part
from mnemos.stores.segments import (
    Layout,
    Rows,
    Segment,
    append,
    checksums,
    create,
    parts,
    segment_path,
    sync,
    sync_folder,
)
from mnemos.stores.writing import append_rows


def check_folder(path: Path, catalogue: str, read_only: bool) -> None:
    """Makes the folder of a new store, or refuses one that is something else."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file; a store is a folder")
    if (path / catalogue).exists():
        # SQLite would make a new, empty catalogue of it, which names none of the segments.
        if not (path / catalogue).stat().st_size and any(path.glob("*.segment")):
            raise StoreDamagedError(f"{path / catalogue} is empty, although there are segments")
    else:
        if read_only:
            raise FileNotFoundError(f"there is no store at {path}")
        if path.exists() and any(not entry.name.startswith(catalogue) for entry in path.iterdir()):
            raise StoreError(f"{path} is a folder of something else: it has no {catalogue}")
        _make_folder(path)


def _make_folder(path: Path) -> None:
    """Durably: a folder's name is in its parent, which SQLite does not sync."""
    missing = [each for each in (path, *path.absolute().parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def remove_orphans(folder: Path, catalogue: Catalogue, *, patient: bool) -> None:
    """Removes segments and indexes that the catalogue does not name: left by a crash, or by compaction.

    Args:
        patient: wait until no other process writes. Otherwise, if one does, leave the files alone: they
            may be its own, not yet committed.
    """
    if not _orphans(folder, catalogue.connection):
        return
    try:
        with catalogue.transaction(patient=patient) as database:
            for path in _orphans(folder, database):
                path.unlink(missing_ok=True)
            sync_folder(folder)
    except StoreBusyError:
        if patient:
            raise


def heal(folder: Path, catalogue: Catalogue, busy_seconds: float) -> None:
    """Puts back the rows that segments lost when power was cut, also for those who only read."""
    with catalogue.transaction(write=False) as database:
        lost = journal.is_lost(folder, database)
    if lost:
        healer = Catalogue(catalogue.path, read_only=False, busy_seconds=busy_seconds)
        with contextlib.closing(healer), healer.transaction() as database:
            journal.restore(folder, database)


def _orphans(folder: Path, database: sqlite3.Connection) -> list[Path]:
    kept = {
        segment_path(folder, number).name for (number,) in database.execute("SELECT number FROM segments")
    }
    kept |= {file for (file,) in database.execute("SELECT file FROM indexes")}
    return [
        path for path in folder.iterdir() if path.suffix in (".segment", ".index") and path.name not in kept
    ]


def rewrite(directory: Directory, database: sqlite3.Connection) -> bool:
    """Copies what is alive out of the segments that hold anything dead, and drops these.

    Their files go when the transaction has committed. Returns whether there was anything dead.
    """
    victims = {number: part for number, part in directory.parts.items() if not part.alive[: part.rows].all()}
    for number in victims:
        database.execute("DELETE FROM segments WHERE number = ?", (number,))
        database.execute("DELETE FROM dead WHERE segment = ?", (number,))
        database.execute("DELETE FROM journal WHERE segment = ?", (number,))
    for part in victims.values():
        assert directory.schema is not None
        for piece in parts(part.rows, part.segment.layout.row_bytes):
            alive = piece.start + np.nonzero(part.alive[piece])[0]
            append_rows(directory.folder, database, directory.schema, part.segment.rows(alive))
    journal.settle(directory.folder, database)
    stale = [id_ for (id_,) in database.execute("SELECT id FROM usage")]
    stale = np.array(stale, np.int64)[directory.places(np.array(stale, np.int64)) < 0].tolist()
    database.executemany("DELETE FROM usage WHERE id = ?", ((id_,) for id_ in stale))
    _forget_names(directory, database)
    return bool(victims)


def _forget_names(directory: Directory, database: sqlite3.Connection) -> None:
    """Drops the names of empty namespaces, which may be people's names, and their indexes."""
    named = json.dumps([directory.namespaces[name] for name in directory.counts()])
    for table, column in (("namespaces", "number"), ("indexes", "namespace")):
        database.execute(
            f"DELETE FROM {table} WHERE {column} NOT IN (SELECT value FROM json_each(?))", (named,)
        )


def faults(directory: Directory, database: sqlite3.Connection) -> list[str]:
    """What is wrong with rows and metadata, a sentence each."""
    found = [fault for part in directory.parts.values() for fault in _row_faults(part)]
    ids = directory.ids()
    if len(np.unique(ids)) < len(ids):
        found.append("some ids name more than one record")
    if len(ids) and not 0 <= int(ids[-1]) < directory.next_id:
        found.append(f"id {int(ids[-1])} was never given out")
    known = set(directory.namespaces.values())
    if any(
        not set(np.unique(part.namespaces[: part.rows]).tolist()) <= known
        for part in directory.parts.values()
    ):
        found.append("some records are in a namespace that has no name")
    described = np.array([id_ for (id_,) in database.execute("SELECT id FROM metadata")], np.int64)
    lost = described[directory.places(described) < 0]
    if len(lost):
        found.append(
            f"there is metadata of {len(lost)} records that are not in the store, first id {lost[0]}"
        )
    return found


def _row_faults(part: Part) -> list[str]:
    damaged = []
    for piece in parts(part.rows, part.segment.layout.row_bytes):
        rows = part.segment.rows(piece)
        wrong = (checksums(rows) != rows.header["checksum"]) & part.alive[piece]
        damaged += (piece.start + np.nonzero(wrong)[0]).tolist()
    if not damaged:
        return []
    ids = part.ids[damaged[:10]].tolist()
    return [f"{part.segment.path.name}: {len(damaged)} records fail their checksum, first ids {ids}"]


def copy(folder: Path, catalogue: Catalogue, name: str, target: Path) -> None:
    """Copies a store as of one moment to a new folder, which appears there complete or not at all."""
    if target.exists():
        raise FileExistsError(f"{target} exists; a snapshot makes a new folder")
    _make_folder(target.parent)
    for _ in range(100):
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            catalogue.backup(draft / name)
            _copy_segments(folder, draft, name)
            sync_folder(draft)
            draft.rename(target)
            sync_folder(target.parent)
            return
        except FileNotFoundError:  # compacted away since the catalogue was copied: begin again
            shutil.rmtree(draft)
        except BaseException:
            shutil.rmtree(draft)
            raise
    raise StoreBusyError(f"{folder} was compacted again and again while it was being copied")


def _copy_segments(folder: Path, draft: Path, name: str) -> None:
    """Copies the rows that the copied catalogue counts."""
    with contextlib.closing(sqlite3.connect(draft / name)) as database:
        schema = schema_from_json(database.execute("SELECT schema FROM state").fetchone()[0])
        for number, capacity, rows in database.execute("SELECT number, capacity, rows FROM segments"):
            assert schema is not None
            layout = Layout(schema, capacity)
            segment = Segment(segment_path(folder, number), layout)
            create(segment_path(draft, number), layout)
            for piece in parts(rows, layout.row_bytes):
                header, keys, values = segment.rows(piece)
                append(segment_path(draft, number), layout, piece.start, Rows(header.copy(), keys, values))
            sync(segment_path(draft, number))
        with database:
            database.execute("DELETE FROM indexes")  # a cache, which is not copied
            database.execute("DELETE FROM journal")  # all rows have been synced


def bytes_on_disk(folder: Path) -> int:
    """What the files really take; segments are sparse."""
    total = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another process may be compacting
            total += 512 * entry.stat().st_blocks
    return total
