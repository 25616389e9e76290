"""Long-term memory for neural networks, in PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

from mnemos import retention
from mnemos.memories import (
    S4D,
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
    SelectiveStateSpace,
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

if TYPE_CHECKING:
    from mnemos.models.hugging_face import Attachment as Attachment
    from mnemos.models.hugging_face import AttentionMemory as AttentionMemory
    from mnemos.models.hugging_face import attach as attach

__version__ = "0.1.0"

__all__ = [
    "S4D",
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
    "SelectiveStateSpace",
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


# Not in __all__: `from mnemos import *` must work without transformers.
_HUGGING_FACE = {"Attachment", "AttentionMemory", "attach"}


def __getattr__(name: str) -> Any:
    """What needs transformers, when it is asked for."""
    if name not in _HUGGING_FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("mnemos.models.hugging_face"), name)
