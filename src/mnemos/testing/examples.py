"""A small instance of every memory, for the laws and whatever else must hold for all of them."""

from collections.abc import Callable
from functools import partial

from torch import nn

from mnemos.memories import (
    DNC,
    MANN,
    NTM,
    S4D,
    SAM,
    SDNC,
    TTTMLP,
    AssociativeRecurrentMemory,
    Atlas,
    BaFastWeights,
    CachedAttention,
    CompressiveMemory,
    ContinuousSparseDistributed,
    ContinuumMemory,
    DeltaRule,
    DenseHopfield,
    Engram,
    EntNet,
    GatedDelta,
    GatedDelta2,
    Hopfield,
    KeyValue,
    KimiDelta,
    LinearAssociator,
    LinearAttention,
    MemorizingAttention,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    ModernHopfield,
    MultiHop,
    ProductKey,
    Recurrent,
    RecurrentMemory,
    RotaryAttention,
    SegmentAttention,
    SelectiveStateSpace,
    ShortConvolution,
    SiluGate,
    SparseDistributed,
    Titans,
    TTTLinear,
)
from mnemos.memories.base import Memory
from mnemos.memories.combination import JointSoftmax
from mnemos.memories.compression import DilatedConvolution, MostUsed
from mnemos.memories.engram import NGramHash
from mnemos.memories.fast_weights import dpfp, logistic
from mnemos.memories.linear_associator import delta, pseudo_inverse
from mnemos.ops import hopfield
from mnemos.ops.ngram import sign_codes
from mnemos.ops.state_space import bilinear, inverse_poles
from mnemos.retention import attention_sinks, heavy_hitters, least_often_used, least_recently_used


def examples() -> dict[str, Callable[[], Memory]]:
    """A constructor of a small instance by class name; variants as "Class/variant"."""
    return {
        "CachedAttention": lambda: CachedAttention(
            4, 3, slots=4, policy=attention_sinks(1, heavy_hitters(2)), heads=2
        ),
        "CompressiveMemory": lambda: CompressiveMemory(
            4, 5, window=3, compressed=2, compression=DilatedConvolution(4, rate=2, dilations=(1,)), heads=2
        ),
        "CompressiveMemory/most_used": lambda: CompressiveMemory(
            3, window=1, compressed=3, compression=MostUsed(rate=2)
        ),
        "ContinuousSparseDistributed": lambda: ContinuousSparseDistributed(
            4, locations=9, top_k=3, chunk_size=4
        ),
        "ContinuousSparseDistributed/pairs": lambda: ContinuousSparseDistributed(3, 2, locations=5, top_k=4),
        "ContinuumMemory": lambda: ContinuumMemory(3, 4, key_size=2, periods=(3, 6), expansion=2),
        "ContinuumMemory/uneven": lambda: ContinuumMemory(
            4, heads=2, key_size=2, periods=(3, 2), expansion=1
        ),
        "DNC": lambda: DNC(4, slots=5, width=3, read_heads=2),
        "DNC/two_write_heads": lambda: DNC(
            3, 4, 2, read_heads=1, write_heads=2, masked_content=True, erase_freed=True, sharpen_links=True
        ),
        "Atlas": lambda: Atlas(
            3, 2, key_size=2, value_size=2, expansion=1, chunk_size=3, window=3, newton_schulz_steps=3
        ),
        "Atlas/omega": lambda: Atlas(
            4,
            heads=2,
            key_size=3,
            value_size=2,
            depth=1,
            chunk_size=2,
            window=4,
            degree=1,
            newton_schulz_steps=0,
        ),
        "AssociativeRecurrentMemory": lambda: AssociativeRecurrentMemory(
            4, segment_size=3, slots=2, key_size=4, layers=2, feed_forward=3
        ),
        "BaFastWeights": lambda: BaFastWeights(4, 3, settling=2),
        "DeltaRule": lambda: DeltaRule(4, 5, heads=2, key_size=3, value_size=2, chunk_size=4),
        "DeltaRule/dpfp": lambda: DeltaRule(3, key_size=2, value_size=3, feature_map=dpfp(2), chunk_size=32),
        "DenseHopfield": lambda: DenseHopfield(3, slots=4, sweeps=2),
        "DenseHopfield/polynomial": lambda: DenseHopfield(
            3, 3, partial(hopfield.polynomial, degree=3), sweeps=1
        ),
        "Engram": lambda: _engram(NGramHash(rows=11, orders=(1, 3), heads=2), kernel_size=3),
        "Engram/sparse": lambda: _engram(NGramHash(rows=5, orders=(2,), heads=3), kernel_size=1, sparse=True),
        "EntNet": lambda: EntNet(3, slots=4),
        "GatedDelta": lambda: GatedDelta(4, 5, heads=2, key_size=3, value_size=2, chunk_size=4),
        "GatedDelta2": lambda: GatedDelta2(4, 5, heads=2, key_size=3, value_size=2, chunk_size=8),
        "Hopfield": lambda: Hopfield(4, sweeps=2),
        "Hopfield/pseudo_inverse": lambda: Hopfield(5, hopfield.pseudo_inverse, sweeps=1, decay=0.2),
        "Hopfield/storkey": lambda: Hopfield(4, hopfield.storkey, hopfield.synchronous, sweeps=2),
        "KeyValue": lambda: KeyValue(4, 3, 5, slots=3, policy=least_recently_used()),
        "KeyValue/top_k": lambda: KeyValue(4, 3, 5, slots=6, policy=least_often_used(), top_k=2),
        "KimiDelta": lambda: KimiDelta(4, 5, heads=2, key_size=3, value_size=2, chunk_size=6),
        "LinearAssociator": lambda: LinearAssociator(4),
        "LinearAssociator/delta": lambda: LinearAssociator(4, 3, delta()),
        "LinearAssociator/pseudo_inverse": lambda: LinearAssociator(4, 3, pseudo_inverse()),
        "LinearAttention": lambda: LinearAttention(4, 5, heads=2, key_size=3, value_size=2, chunk_size=4),
        "LinearAttention/schmidhuber": lambda: LinearAttention(
            3, key_size=3, value_size=2, feature_map=logistic(), normalised=False
        ),
        "MANN": lambda: MANN(4, slots=5, width=3, heads=2),
        "MANN/more_heads": lambda: MANN(3, slots=2, width=2, heads=3, decay=0.5, writes_keys=True),
        "MemorizingAttention": lambda: MemorizingAttention(4, 3, window=2, slots=5, top_k=2, heads=2),
        "MemorizingAttention/joint": lambda: MemorizingAttention(
            3, window=1, slots=3, top_k=None, combination=JointSoftmax()
        ),
        "MemoryAsContext": lambda: MemoryAsContext(
            GatedDelta(4, key_size=3, value_size=2, chunk_size=4), segment=4, heads=2, persistent=2
        ),
        "MemoryAsContext/titans": lambda: MemoryAsContext(
            Titans(4, key_size=2, value_size=3, depth=1, chunk_size=2), segment=3, persistent=0
        ),
        "MemoryAsGate": lambda: MemoryAsGate(
            GatedDelta(4, key_size=3, value_size=2, chunk_size=4), RotaryAttention(4, 2, 3), persistent=2
        ),
        "MemoryAsLayer": lambda: MemoryAsLayer(
            GatedDelta(2, key_size=3, value_size=2, chunk_size=4), SegmentAttention(2, 3, window=2), 1
        ),
        "ModernHopfield": lambda: ModernHopfield(4, slots=3),
        "ModernHopfield/steps": lambda: ModernHopfield(3, slots=6, inverse_temperature=2.0, steps=3),
        "NTM": lambda: NTM(4, slots=5, width=3),
        "NTM/heads": lambda: NTM(3, slots=4, width=2, read_heads=2, write_heads=2, shifts=2),
        "MultiHop": lambda: MultiHop(3, slots=5, hops=2),
        "MultiHop/key_value": lambda: MultiHop(3, slots=4, hops=2, tying="key_value", temporal=False),
        "MultiHop/layer_wise": lambda: MultiHop(
            3, slots=7, hops=3, tying="layer_wise", may_find_nothing=True
        ),
        "ProductKey": lambda: ProductKey(4, 5, 3, heads=2, top_k=7, key_size=6),
        "ProductKey/gated": lambda: ProductKey(
            4, 4, 3, heads=2, top_k=2, key_size=8, gate=SiluGate(4, 3, 5), count_usage=False
        ),
        "Recurrent": lambda: Recurrent(4, 5),
        "Recurrent/gru": lambda: Recurrent(4, 5, cell="gru", longest_dependency=20),
        "Recurrent/rnn": lambda: Recurrent(4, 5, cell="rnn"),
        "RecurrentMemory": lambda: RecurrentMemory(
            4, segment_size=3, slots=2, layers=2, heads=2, feed_forward=3
        ),
        "RecurrentMemory/single_steps": lambda: RecurrentMemory(2, segment_size=1, slots=1, layers=1),
        "RotaryAttention": lambda: RotaryAttention(8, heads=2, window=4),
        "S4D": lambda: S4D(3, 4),
        "S4D/inverse": lambda: S4D(2, 6, inverse_poles, bilinear),
        "SAM": lambda: SAM(4, slots=7, width=3, heads=2, top_k=3),
        "SAM/indexed": lambda: SAM(3, slots=6, width=3, heads=1, top_k=2, probes=9),
        "SAM/more_heads": lambda: SAM(3, slots=3, width=2, heads=4, top_k=5),
        "SDNC": lambda: SDNC(4, slots=7, width=3, top_k=3, links=2),
        "SDNC/several_heads": lambda: SDNC(3, slots=4, width=2, heads=2, top_k=2, links=9),
        "SegmentAttention": lambda: SegmentAttention(4, 5, window=3, heads=2),
        "SelectiveStateSpace": lambda: SelectiveStateSpace(3, 2, step_rank=2),
        "ShortConvolution": lambda: ShortConvolution(3, kernel_size=4),
        "SparseDistributed": lambda: SparseDistributed(6, locations=20, radius=2, counter_bits=3),
        "SparseDistributed/pairs": lambda: SparseDistributed(6, 3, locations=20, radius=2, counter_bits=9),
        "TTTLinear": lambda: TTTLinear(3, 2, heads=2, key_size=4, chunk_size=3),
        "TTTMLP": lambda: TTTMLP(3, key_size=3, expansion=2, chunk_size=2),
        "Titans": lambda: Titans(4, 5, key_size=3, value_size=2, expansion=2, chunk_size=4),
        "Titans/linear": lambda: Titans(
            3, heads=2, key_size=2, value_size=3, depth=1, chunk_size=1, momentum=False
        ),
    }


def _engram(hashing: NGramHash, kernel_size: int, sparse: bool = False) -> Engram:
    table = nn.Embedding(hashing.table_rows, 3, sparse=sparse)
    return Engram(4, hashing, table, kernel_size, sign_codes)
