"""Durable records behind one protocol: the embedded store on disk and its twin in RAM."""

import time
from collections.abc import Callable
from pathlib import Path

from mnemos.stores.base import (
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
from mnemos.stores.embedded import EmbeddedStore
from mnemos.stores.ram import RamStore

__all__ = [
    "Hits",
    "Records",
    "Schema",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreDamagedError",
    "StoreError",
    "open",
]


def open(
    location: str | Path,
    *,
    metric: Metric | None = None,
    fingerprint: str | None = None,
    read_only: bool = False,
    clock: Callable[[], float] = time.time,
    busy_seconds: float = 30.0,
) -> Store:
    """Opens a store, and makes it if it is not there.

    Args:
        location: a path for the embedded store, or ":memory:" for one that ends with the process.
        metric: how keys are compared (default: inner product, and Hamming distance for bits). Checked
            against the store's own if it has one.
        fingerprint: names the model whose keys these are. Kept when the store is made; a store made
            with another is refused, since keys of two models cannot be compared.
        read_only: refuse to write; the store must exist.
        clock: the time in seconds.
        busy_seconds: how long a write waits for another process's to end.

    Raises:
        StoreError: the store is another model's or metric's, damaged, or of a newer format.
        StoreBusyError: another process kept on writing.
    """
    if str(location) == ":memory:":
        return RamStore(metric=metric, fingerprint=fingerprint, read_only=read_only, clock=clock)
    if "://" in str(location):
        raise StoreError(
            f"{location!r} names a server; this release has an embedded store (a path) and ':memory:'"
        )
    return EmbeddedStore(
        location,
        metric=metric,
        fingerprint=fingerprint,
        read_only=read_only,
        clock=clock,
        busy_seconds=busy_seconds,
    )
