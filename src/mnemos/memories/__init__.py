"""The memories: one published system per file."""

from mnemos.memories.base import AddressableMemory, Memory, Reading
from mnemos.memories.recurrent import GRUState, LSTMState, Recurrent, RNNState

__all__ = ["AddressableMemory", "GRUState", "LSTMState", "Memory", "RNNState", "Reading", "Recurrent"]
