"""The laws of memories and stores, shipped so that yours can be held to them too."""

import importlib
from typing import TYPE_CHECKING, Any

from mnemos.testing.examples import examples

if TYPE_CHECKING:
    from mnemos.testing.memory_suite import MemorySuite
    from mnemos.testing.store_suite import StoreSuite

__all__ = ["MemorySuite", "StoreSuite", "examples"]

_SUITES = {"MemorySuite": "mnemos.testing.memory_suite", "StoreSuite": "mnemos.testing.store_suite"}


def __getattr__(name: str) -> Any:
    """The suites when they are asked for: they need pytest and hypothesis, the crash test needs neither."""
    if name not in _SUITES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_SUITES[name]), name)
