"""The memories: one published system per file."""

from mnemos.memories.base import AddressableMemory, Memory, Reading
from mnemos.memories.delta_rule import DeltaRule, DeltaRuleState
from mnemos.memories.engram import Engram, EngramState, NGramHash
from mnemos.memories.key_value import KeyValue, KeyValueState
from mnemos.memories.linear_associator import LinearAssociator, LinearAssociatorState
from mnemos.memories.product_key import ProductKey, ProductKeyState, SiluGate
from mnemos.memories.mapped_table import MappedTable
from mnemos.memories.recurrent import GRUState, LSTMState, Recurrent, RNNState
from mnemos.memories.segment_attention import SegmentAttention, SegmentAttentionState
from mnemos.memories.value_table import StoredValues, Values, ValueTable

__all__ = [
    "AddressableMemory",
    "DeltaRule",
    "DeltaRuleState",
    "Engram",
    "EngramState",
    "GRUState",
    "KeyValue",
    "KeyValueState",
    "LSTMState",
    "LinearAssociator",
    "LinearAssociatorState",
    "MappedTable",
    "Memory",
    "ProductKey",
    "ProductKeyState",
    "NGramHash",
    "RNNState",
    "Reading",
    "Recurrent",
    "SegmentAttention",
    "SegmentAttentionState",
    "SiluGate",
    "StoredValues",
    "ValueTable",
    "Values",
]
