"""How often and when records were read: counted in RAM, written to the catalogue in batches.

Counts are advice to retention policies, not records, so a crash may lose the last of them. They lie in a
table of their own: rewriting them beside the records would cost every read a write of the record.
"""

import json
import sqlite3

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray


class ReadCounts:
    """Reads that are not in the catalogue yet."""

    def __init__(self, most: int = 1 << 18) -> None:
        self.pending = 0
        self._most = most
        self._ids: list[NDArray[np.int64]] = []
        self._times: list[float] = []

    @property
    def full(self) -> bool:
        return self.pending >= self._most

    def add(self, ids: Int[np.ndarray, " found"], now: float) -> None:
        """Counts one read of every record; one that answered several queries counts as often."""
        if len(ids):
            self._ids.append(ids)
            self._times.append(now)
            self.pending += len(ids)

    def save(self, database: sqlite3.Connection) -> None:
        """Adds the counts to the catalogue, within a transaction."""
        ids, last, times = self._summary()
        database.executemany(
            """INSERT INTO usage VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET
            last_read = max(last_read, excluded.last_read), times_read = times_read + excluded.times_read""",
            zip(ids.tolist(), last.tolist(), times.tolist(), strict=True),
        )
        self.pending, self._ids, self._times = 0, [], []

    def forget(self, ids: Int[np.ndarray, " records"]) -> None:
        """Drops the counts of records that are deleted."""
        for position, counted in enumerate(self._ids):
            self._ids[position] = counted[~np.isin(counted, ids)]
        self.pending = sum(map(len, self._ids))

    def of(
        self, database: sqlite3.Connection, ids: Int[np.ndarray, " records"]
    ) -> tuple[Float[np.ndarray, " records"], Int[np.ndarray, " records"]]:
        """When each record was last read (minus infinity: never), and how often."""
        query = "SELECT * FROM usage WHERE id IN (SELECT value FROM json_each(?))"
        saved = database.execute(query, (json.dumps(ids.tolist()),)).fetchall()
        last, times = np.full(len(ids), -np.inf), np.zeros(len(ids), np.int64)
        columns = np.array(saved, np.float64).reshape(-1, 3).T
        for found, when, often in ((columns[0].astype(np.int64), columns[1], columns[2]), self._summary()):
            if not len(found):
                continue
            order = np.argsort(found)
            position = order[np.searchsorted(found, ids, sorter=order).clip(max=len(found) - 1)]
            known = found[position] == ids
            last = np.where(known, np.maximum(last, when[position]), last)
            times = times + np.where(known, often[position], 0).astype(np.int64)
        return last, times

    def _summary(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Every record once: its id, its last read, and how many reads."""
        ids = np.concatenate([*self._ids, np.empty(0, np.int64)])
        when = np.repeat(np.array(self._times), [len(part) for part in self._ids])
        unique, which, times = np.unique(ids, return_inverse=True, return_counts=True)
        last = np.full(len(unique), -np.inf)
        np.maximum.at(last, which, when)
        return unique, last, times
