"""The memories: one published system per file."""

from mnemos.memories.base import AddressableMemory, Memory, Reading
from mnemos.memories.delta_rule import DeltaRule, DeltaRuleState
from mnemos.memories.key_value import KeyValue, KeyValueState
from mnemos.memories.linear_associator import LinearAssociator, LinearAssociatorState
from mnemos.memories.recurrent import GRUState, LSTMState, Recurrent, RNNState
from mnemos.memories.segment_attention import SegmentAttention, SegmentAttentionState

__all__ = [
    "AddressableMemory",
    "DeltaRule",
    "DeltaRuleState",
    "GRUState",
    "KeyValue",
    "KeyValueState",
    "LSTMState",
    "LinearAssociator",
    "LinearAssociatorState",
    "Memory",
    "RNNState",
    "Reading",
    "Recurrent",
    "SegmentAttention",
    "SegmentAttentionState",
]
