"""Long-term memory for neural networks, in PyTorch."""

from mnemos.memories.base import AddressableMemory, Memory, Reading
from mnemos.snapshot import SnapshotError, load, save
from mnemos.stores import open
from mnemos.tree import (
    concatenate_rows,
    detach,
    nbytes,
    repeat_rows,
    reset_rows,
    select_rows,
    to,
)

__version__ = "0.1.0"

__all__ = [
    "AddressableMemory",
    "Memory",
    "Reading",
    "SnapshotError",
    "concatenate_rows",
    "detach",
    "load",
    "nbytes",
    "open",
    "repeat_rows",
    "reset_rows",
    "save",
    "select_rows",
    "to",
]
