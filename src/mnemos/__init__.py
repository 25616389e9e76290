"""Long-term memory for neural networks, in PyTorch."""

from mnemos import retention
from mnemos.memories import (
    ContinuousSparseDistributed,
    DeltaRule,
    DenseHopfield,
    Engram,
    EntNet,
    Hopfield,
    KeyValue,
    LinearAssociator,
    ModernHopfield,
    MultiHop,
    ProductKey,
    Recurrent,
    SegmentAttention,
    ShortConvolution,
    SparseDistributed,
)
from mnemos.memories.base import AddressableMemory, Memory, Reading
from mnemos.snapshot import SnapshotError, load, save
from mnemos.stores import (
    Hits,
    Records,
    Store,
    StoreBusyError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    open,
)
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
    "ContinuousSparseDistributed",
    "DeltaRule",
    "DenseHopfield",
    "Engram",
    "EntNet",
    "Hits",
    "Hopfield",
    "KeyValue",
    "LinearAssociator",
    "Memory",
    "ModernHopfield",
    "MultiHop",
    "ProductKey",
    "Reading",
    "Records",
    "Recurrent",
    "SegmentAttention",
    "ShortConvolution",
    "SnapshotError",
    "SparseDistributed",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreDamagedError",
    "StoreError",
    "concatenate_rows",
    "detach",
    "load",
    "nbytes",
    "open",
    "repeat_rows",
    "reset_rows",
    "retention",
    "save",
    "select_rows",
    "to",
]
