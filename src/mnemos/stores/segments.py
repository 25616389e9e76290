"""Segment files: records of fixed width, appended, synced, and mapped for reading.

A segment holds up to `capacity` rows in three columns, one after the other in one sparse file:

    rows    id, times and so on, 32 bytes each, with a checksum over the whole record
    keys    key_bytes each
    values  value_bytes each

so that the keys of many records lie side by side, as a search wants them. The file has its full length
from the start and is mapped once; disk space is taken as rows are written. Nothing that the catalogue
has committed is ever overwritten: what lies behind the committed rows is nobody's.
"""

import mmap
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped, UInt32
from torch import Tensor

from mnemos.stores.arguments import KEY_DTYPES
from mnemos.stores.base import Schema, StoreDamagedError

ROW = np.dtype(
    [("id", "<i8"), ("written_at", "<f8"), ("strength", "<f8"), ("namespace", "<i4"), ("checksum", "<u4")]
)
SMALLEST, LARGEST = 1 << 12, 1 << 18  # rows; each new segment is twice the last, so small stores stay small
_PAGE = 4096
_PART = 1 << 26  # bytes written or checked at once


class Rows(NamedTuple):
    """Records of fixed width, as they are written and read."""

    header: np.ndarray  # of dtype ROW
    keys: Shaped[Tensor, "records keys"]
    values: Shaped[Tensor, "records *value"]


@dataclass(frozen=True)
class Layout:
    """Where the columns of a segment lie."""

    schema: Schema
    capacity: int

    @property
    def key_bytes(self) -> int:
        return self.schema.key_size * KEY_DTYPES[self.schema.key_dtype].itemsize

    @property
    def value_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.schema.value_dtype)
        return dtype

    @property
    def value_bytes(self) -> int:
        return int(np.prod(self.schema.value_shape, dtype=np.int64)) * self.value_dtype.itemsize

    @property
    def keys_at(self) -> int:
        return _aligned(self.capacity * ROW.itemsize)

    @property
    def values_at(self) -> int:
        return self.keys_at + _aligned(self.capacity * self.key_bytes)

    @property
    def widths(self) -> tuple[int, int, int]:
        """Bytes a row takes in each column."""
        return ROW.itemsize, self.key_bytes, self.value_bytes

    @property
    def row_bytes(self) -> int:
        return sum(self.widths)

    @property
    def size(self) -> int:
        return self.values_at + _aligned(self.capacity * self.value_bytes)


def next_capacity(rows: int, last: int) -> int:
    """The capacity of a new segment that `rows` more records wait for, `last` being the one before."""
    wanted = max(SMALLEST, 2 * last, 1 << (rows - 1).bit_length())
    return min(LARGEST, wanted)


class Segment:
    """One segment file, mapped. Its columns `header`, `keys` and `values` must not be written to.

    Raises:
        StoreDamagedError: the file does not have its full length, so that reading it could end the process.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.layout = path, layout
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != layout.size:
                raise StoreDamagedError(
                    f"{path} has {size} bytes instead of {layout.size}: it was cut or changed"
                )
            self._map = mmap.mmap(file.fileno(), layout.size, access=mmap.ACCESS_READ)
        self.header = np.frombuffer(self._map, ROW, layout.capacity)
        schema = layout.schema
        self.keys = self._column(layout.keys_at, KEY_DTYPES[schema.key_dtype], (schema.key_size,))
        self.values = self._column(layout.values_at, layout.value_dtype, schema.value_shape)

    def _column(self, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        count = self.layout.capacity * int(np.prod(shape, dtype=np.int64))
        if not count:
            return torch.empty(self.layout.capacity, *shape, dtype=dtype)
        with warnings.catch_warnings():  # torch has no read-only tensors; this one never leaves the store
            warnings.simplefilter("ignore")
            flat = torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset)
        return flat.view(self.layout.capacity, *shape)

    def rows(self, chosen: Any) -> Rows:
        """Some rows, by slice or mask; a slice is a view, to be copied if it must outlive the segment."""
        return Rows(self.header[chosen], self.keys[chosen], self.values[chosen])


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.segment"


def create(path: Path, layout: Layout) -> None:
    """Makes an empty segment; what a crash may have left under the name is emptied."""
    with open(path, "wb") as file:
        file.truncate(layout.size)
        os.fsync(file.fileno())
    sync_folder(path.parent)


def append(path: Path, layout: Layout, start: int, rows: Rows) -> None:
    """Writes rows from position `start` on. The disk has them only after `sync`."""
    with open(path, "r+b") as file:
        descriptor = file.fileno()
        _write(descriptor, start * ROW.itemsize, torch.from_numpy(rows.header.view(np.uint8)))
        _write(descriptor, layout.keys_at + start * layout.key_bytes, rows.keys)
        _write(descriptor, layout.values_at + start * layout.value_bytes, rows.values)


def sync(path: Path) -> None:
    """Returns when the disk has all that was written to a segment."""
    with open(path, "r+b") as file:
        getattr(os, "fdatasync", os.fsync)(file.fileno())  # macOS has no fdatasync


def checksums(rows: Rows) -> UInt32[np.ndarray, " records"]:
    """A multilinear hash of each record, modulo 2^32 (Carter & Wegman 1979).

    The weights are odd, so a change within any one aligned four bytes is always found, any other with
    a chance of all but one in four billion. A row of zeros, which is what a lost page reads as, fails.
    """
    total = np.full(len(rows.header), 0x9E3779B9, np.uint32)
    header = np.ascontiguousarray(rows.header).view(np.uint32).reshape(-1, ROW.itemsize // 4)
    first = 1
    for words in (header[:, :-1], _words(rows.keys), _words(rows.values)):  # the last word is the checksum
        weights = (np.arange(first, first + words.shape[1], dtype=np.uint64) * 0x9E3779B1).astype(
            np.uint32
        ) | 1
        total += np.einsum("ij,j->i", words, weights)  # ten times as fast as @ for integers
        first += words.shape[1]
    return total


def sync_folder(folder: Path) -> None:
    """Makes the folder's entries durable: a new file's name is not until its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parts(rows: int, width: int) -> list[slice]:
    """Slices of `rows` rows of `width` bytes each, as many as are worth handling at once."""
    step = max(1, _PART // width)
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]


def _words(column: Shaped[Tensor, "records *shape"]) -> UInt32[np.ndarray, "records words"]:
    """Each record's bytes as 32-bit words, the last one filled up with zeros."""
    if not column.numel():
        return np.empty((len(column), 0), np.uint32)
    octets = column.reshape(len(column), -1).contiguous().view(torch.uint8).numpy()
    if missing := -octets.shape[1] % 4:
        octets = np.pad(octets, ((0, 0), (0, missing)))
    return np.ascontiguousarray(octets).view(np.uint32)


def _write(descriptor: int, offset: int, column: Tensor) -> None:
    """All of it: a single call may write less than it was given."""
    if not column.numel():
        return
    left = memoryview(column.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    while left:
        written = os.pwrite(descriptor, left[:_PART], offset)
        left, offset = left[written:], offset + written


def _aligned(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
