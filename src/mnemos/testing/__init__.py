"""The laws of memories and stores, shipped so that yours can be held to them too."""

from mnemos.testing.examples import examples
from mnemos.testing.memory_suite import MemorySuite

__all__ = ["MemorySuite", "examples"]
