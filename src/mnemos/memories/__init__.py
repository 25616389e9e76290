"""The memories: one published system per file."""

from mnemos.memories.archive import Archive
from mnemos.memories.associative_recurrent_memory import Associations, AssociativeRecurrentMemory
from mnemos.memories.atlas import Atlas
from mnemos.memories.atlas_steps import AtlasState
from mnemos.memories.ba_fast_weights import BaFastWeights, BaFastWeightsState
from mnemos.memories.base import AddressableMemory, Memory, Projection, Reading
from mnemos.memories.cached_attention import CachedAttention, CachedAttentionState
from mnemos.memories.compressive import CompressiveMemory, CompressiveState
from mnemos.memories.continuous_sparse_distributed import (
    ContinuousSparseDistributed,
    ContinuousSparseDistributedState,
)
from mnemos.memories.continuum import ContinuumMemory, ContinuumState
from mnemos.memories.delta_rule import DeltaRule
from mnemos.memories.dense_hopfield import DenseHopfield, DenseHopfieldState
from mnemos.memories.dnc import DNC, DNCState
from mnemos.memories.engram import Engram, EngramState, NGramHash
from mnemos.memories.entity import EntNet, EntNetState
from mnemos.memories.fast_weights import FastWeights, FastWeightState, FeatureMap
from mnemos.memories.gated_delta import GatedDelta
from mnemos.memories.gated_delta_2 import GatedDelta2
from mnemos.memories.hopfield import Hopfield, HopfieldState
from mnemos.memories.key_value import KeyValue, KeyValueState
from mnemos.memories.kimi_delta import KimiDelta
from mnemos.memories.linear_associator import LinearAssociator, LinearAssociatorState
from mnemos.memories.linear_attention import LinearAttention
from mnemos.memories.mann import MANN, MANNState
from mnemos.memories.mapped_table import MappedTable
from mnemos.memories.memoriser_steps import MemoriserState
from mnemos.memories.memorizing import MemorizingAttention, MemorizingState
from mnemos.memories.memory_as_context import MemoryAsContext, MemoryAsContextState
from mnemos.memories.memory_as_gate import MemoryAsGate, MemoryAsGateState
from mnemos.memories.memory_as_layer import MemoryAsLayer, MemoryAsLayerState
from mnemos.memories.modern_hopfield import ModernHopfield, ModernHopfieldState
from mnemos.memories.multi_hop import MultiHop, MultiHopState
from mnemos.memories.ntm import NTM, NTMState
from mnemos.memories.product_key import ProductKey, ProductKeyState, SiluGate
from mnemos.memories.recurrent import GRUState, LSTMState, Recurrent, RNNState
from mnemos.memories.recurrent_memory import MemoryTokens, RecurrentMemory
from mnemos.memories.rotary_attention import RotaryAttention, RotaryState
from mnemos.memories.s4d import S4D, S4DState
from mnemos.memories.sam import SAM, SAMState
from mnemos.memories.sdnc import SDNC, SDNCState
from mnemos.memories.segment_attention import SegmentAttention, SegmentAttentionState
from mnemos.memories.segment_recurrence import SegmentRecurrence, SegmentState
from mnemos.memories.selective_state_space import SelectiveStateSpace, SelectiveStateSpaceState
from mnemos.memories.short_convolution import ShortConvolution, ShortConvolutionState
from mnemos.memories.sparse_distributed import SparseDistributed, SparseDistributedState
from mnemos.memories.stepped import SteppedMemory
from mnemos.memories.titans import Titans
from mnemos.memories.ttt import TTTMLP, TTTLinear
from mnemos.memories.value_table import StoredValues, Values, ValueTable

__all__ = [
    "DNC",
    "MANN",
    "NTM",
    "S4D",
    "SAM",
    "SDNC",
    "TTTMLP",
    "AddressableMemory",
    "Archive",
    "Associations",
    "AssociativeRecurrentMemory",
    "Atlas",
    "AtlasState",
    "BaFastWeights",
    "BaFastWeightsState",
    "CachedAttention",
    "CachedAttentionState",
    "CompressiveMemory",
    "CompressiveState",
    "ContinuousSparseDistributed",
    "ContinuousSparseDistributedState",
    "ContinuumMemory",
    "ContinuumState",
    "DNCState",
    "DeltaRule",
    "DenseHopfield",
    "DenseHopfieldState",
    "Engram",
    "EngramState",
    "EntNet",
    "EntNetState",
    "FastWeightState",
    "FastWeights",
    "FeatureMap",
    "GRUState",
    "GatedDelta",
    "GatedDelta2",
    "Hopfield",
    "HopfieldState",
    "KeyValue",
    "KeyValueState",
    "KimiDelta",
    "LSTMState",
    "LinearAssociator",
    "LinearAssociatorState",
    "LinearAttention",
    "MANNState",
    "MappedTable",
    "MemoriserState",
    "MemorizingAttention",
    "MemorizingState",
    "Memory",
    "MemoryAsContext",
    "MemoryAsContextState",
    "MemoryAsGate",
    "MemoryAsGateState",
    "MemoryAsLayer",
    "MemoryAsLayerState",
    "MemoryTokens",
    "ModernHopfield",
    "ModernHopfieldState",
    "MultiHop",
    "MultiHopState",
    "NGramHash",
    "NTMState",
    "ProductKey",
    "ProductKeyState",
    "Projection",
    "RNNState",
    "Reading",
    "Recurrent",
    "RecurrentMemory",
    "RotaryAttention",
    "RotaryState",
    "S4DState",
    "SAMState",
    "SDNCState",
    "SegmentAttention",
    "SegmentAttentionState",
    "SegmentRecurrence",
    "SegmentState",
    "SelectiveStateSpace",
    "SelectiveStateSpaceState",
    "ShortConvolution",
    "ShortConvolutionState",
    "SiluGate",
    "SparseDistributed",
    "SparseDistributedState",
    "SteppedMemory",
    "StoredValues",
    "TTTLinear",
    "Titans",
    "ValueTable",
    "Values",
]
