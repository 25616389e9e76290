"""The catalogue of an embedded store: everything that is not of fixed width, in SQLite.

Its commit is the store's acknowledgement. Write-ahead logging with synchronous=FULL makes the commit
durable before it returns; secure_delete overwrites what is deleted.
"""

import contextlib
import errno
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mnemos.stores.base import Metric, Schema, StoreBusyError, StoreDamagedError, StoreError

APPLICATION = 0x6D6E656D  # "mnem", in the file's header: tells a store from any other database


def m001_create(connection: sqlite3.Connection) -> None:
    """The first format."""
    connection.execute(
        """CREATE TABLE state (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            schema TEXT,                       -- JSON; NULL before the first write
            metric TEXT,                       -- as asked for when the store was made
            fingerprint TEXT,
            next_id INTEGER NOT NULL,
            commits INTEGER NOT NULL           -- grows with every change, so that readers notice
        )"""
    )
    connection.execute("INSERT INTO state VALUES (1, NULL, NULL, NULL, 0, 0)")
    connection.execute(
        """CREATE TABLE segments (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            capacity INTEGER NOT NULL,
            rows INTEGER NOT NULL              -- committed; what lies behind is nobody's
        )"""
    )
    connection.execute("CREATE TABLE namespaces (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)")
    connection.execute("CREATE TABLE metadata (id INTEGER PRIMARY KEY, metadata TEXT NOT NULL)")
    connection.execute(
        """CREATE TABLE dead (                 -- rows that were deleted or overwritten
            sequence INTEGER PRIMARY KEY AUTOINCREMENT,
            segment INTEGER NOT NULL,
            row INTEGER NOT NULL
        )"""
    )
    connection.execute(
        "CREATE TABLE usage (id INTEGER PRIMARY KEY, last_read REAL NOT NULL, times_read INTEGER NOT NULL)"
    )
    connection.execute(
        """CREATE TABLE indexes (
            namespace INTEGER PRIMARY KEY,
            file TEXT NOT NULL,
            covered INTEGER NOT NULL,          -- the last place in the index; newer rows are searched exactly
            recall REAL NOT NULL
        )"""
    )


def m002_journal(connection: sqlite3.Connection) -> None:
    """Rows of small batches, whose segment need not be synced before the commit."""
    connection.execute(
        """CREATE TABLE journal (
            segment INTEGER NOT NULL,
            row INTEGER NOT NULL,              -- the first one's position in the segment
            count INTEGER NOT NULL,
            content BLOB NOT NULL              -- the columns of these rows, one after the other
        )"""
    )


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [m001_create, m002_journal]
FORMAT = len(MIGRATIONS)


class Catalogue:
    """A connection to the SQLite file of a store.

    Args:
        path: the file; made by the first `write_transaction` if `read_only` is false.
        busy_seconds: how long to wait for another process's transaction.
    """

    def __init__(self, path: Path, *, read_only: bool, busy_seconds: float) -> None:
        self.path, self.read_only = path, read_only
        self._busy_milliseconds = self._waits = int(1000 * busy_seconds)
        with _translated(path):
            self.connection = self._connect(busy_seconds)
            try:
                self._prepare()
            except BaseException:
                self.connection.close()
                raise

    def _connect(self, busy_seconds: float) -> sqlite3.Connection:
        address = self.path.absolute().as_uri()
        settings: dict[str, Any] = {
            "timeout": busy_seconds,
            "isolation_level": None,  # transactions begin where the code says so
            "check_same_thread": False,  # the store has a lock of its own
            "uri": True,
        }
        if not self.read_only:
            return sqlite3.connect(address + "?mode=rwc", **settings)
        connection = sqlite3.connect(address + "?mode=ro", **settings)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        except sqlite3.OperationalError:  # a folder where SQLite cannot make the files that readers share
            connection.close()
            connection = sqlite3.connect(address + "?immutable=1", **settings)
        return connection

    def _prepare(self) -> None:
        """Refuses what is not a store of this or an older format, and brings an older one up to date."""
        application, version = self._pragma("application_id"), self._pragma("user_version")
        empty = not self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION and not (empty and application == version == 0):
            raise StoreError(f"{self.path} is an SQLite file of something else, not a mnemos store")
        if version > FORMAT:
            raise StoreError(
                f"{self.path} has format {version}; this release of mnemos reads up to {FORMAT}: upgrade it"
            )
        if self.read_only:
            if version < FORMAT:
                raise StoreError(f"{self.path} has the older format {version}: open it once for writing")
            return
        if self._pragma("journal_mode") != "wal":
            self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute("PRAGMA secure_delete=ON")
        if version < FORMAT:
            self._migrate()

    def _migrate(self) -> None:
        with self.transaction():
            # Another process may have done it between our look and our lock.
            for version in range(self._pragma("user_version"), FORMAT):
                MIGRATIONS[version](self.connection)
            self.connection.execute(f"PRAGMA application_id={APPLICATION}")
            self.connection.execute(f"PRAGMA user_version={FORMAT}")

    def claim(self, metric: Metric | None, fingerprint: str | None) -> tuple[Metric | None, str | None]:
        """Checks metric and fingerprint against the store's own, which a new store takes from here."""
        query = "SELECT metric, fingerprint FROM state"
        own = self.connection.execute(query).fetchone()
        if not self.read_only and None in own and (metric or fingerprint):
            with self.transaction():
                self.connection.execute(
                    "UPDATE state SET metric = coalesce(metric, ?), fingerprint = coalesce(fingerprint, ?)",
                    (metric, fingerprint),
                )
                own = self.connection.execute(query).fetchone()
        for name, given, kept in zip(("metric", "fingerprint"), (metric, fingerprint), own, strict=True):
            if given is not None and kept is not None and given != kept:
                raise StoreError(f"{self.path.parent} was made with {name} {kept!r}, not {given!r}")
        return own[0], own[1]

    def commits(self) -> int:
        """How many changes there have been, of all processes: one statement, which is a transaction."""
        with _translated(self.path):
            return self.connection.execute("SELECT commits FROM state").fetchone()[0]

    def _pragma(self, name: str) -> Any:
        return self.connection.execute(f"PRAGMA {name}").fetchone()[0]

    def _wait(self, milliseconds: int) -> None:
        """How long the next statements wait for another process; said to SQLite only when it changes."""
        if milliseconds != self._waits:
            self.connection.execute(f"PRAGMA busy_timeout={milliseconds}")
            self._waits = milliseconds

    @contextlib.contextmanager
    def transaction(self, *, write: bool = True, patient: bool = True) -> Iterator[sqlite3.Connection]:
        """All or nothing.

        Args:
            write: wait until no other process writes, and keep others from it; else see one moment.
            patient: whether to wait at all; else StoreBusyError at once.
        """
        with _translated(self.path):
            self._wait(self._busy_milliseconds if patient else 0)
            self.connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def backup(self, path: Path) -> None:
        """Copies the catalogue as of one moment, while others go on writing."""
        with _translated(path), contextlib.closing(sqlite3.connect(path)) as target:
            self.connection.backup(target, pages=-1)  # all in one step: one moment
            target.execute("PRAGMA journal_mode=DELETE")  # so that the copy is one complete file

    def erase(self) -> None:
        """Gives free pages back and empties the log, so that no deleted text is left in either."""
        with _translated(self.path):
            self.connection.execute("VACUUM")
            busy, *_ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreBusyError(
                f"{self.path}-wal is being read, so deleted text may still be in it: compact again"
            )

    def faults(self) -> list[str]:
        """What SQLite's own check finds."""
        with _translated(self.path):
            found = [row[0] for row in self.connection.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else [f"{self.path.name}: {fault}" for fault in found]

    def close(self) -> None:
        self.connection.close()


def schema_to_json(schema: Schema) -> str:
    return json.dumps(asdict(schema))


def schema_from_json(text: str | None) -> Schema | None:
    if text is None:
        return None
    fields = json.loads(text)
    return Schema(**{**fields, "value_shape": tuple(fields["value_shape"])})


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors, as the ones that a user of a store expects."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreBusyError(
                f"another process is writing to {path}; it did not finish in time"
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise OSError(
                errno.ENOSPC, "no space left on the device; nothing was written", str(path)
            ) from error
        if code == sqlite3.SQLITE_READONLY:
            raise PermissionError(errno.EACCES, "the store cannot be written", str(path)) from error
        if code == sqlite3.SQLITE_CANTOPEN:
            raise OSError(errno.ENOENT, "the store's catalogue cannot be opened", str(path)) from error
        raise StoreError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreDamagedError(f"{path} is damaged or not a store: {error}") from error
