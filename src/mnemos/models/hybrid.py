"""Decoders built from the names of their layers: "gated-delta gated-delta gated-delta attention"."""

from collections.abc import Callable, Sequence
from typing import Any

from mnemos.memories import (
    S4D,
    TTTMLP,
    Atlas,
    CompressiveMemory,
    ContinuumMemory,
    DeltaRule,
    GatedDelta,
    GatedDelta2,
    KimiDelta,
    LinearAttention,
    MemorizingAttention,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    Recurrent,
    RotaryAttention,
    SegmentAttention,
    SelectiveStateSpace,
    Titans,
    TTTLinear,
)
from mnemos.memories.base import Memory
from mnemos.memories.combination import HeadGate
from mnemos.memories.compression import MeanPool
from mnemos.models.mixer import Mixer
from mnemos.models.transformer import Transformer, feed_forward_of

# For every name, what builds the layer's memory for a width, heads and a window.
LAYERS: dict[str, Callable[[int, int, int], Memory]] = {
    "attention": lambda width, heads, window: RotaryAttention(width, heads, window),
    "segment-attention": lambda width, heads, window: SegmentAttention(width, window=window, heads=heads),
    "compressive-memory": lambda width, heads, window: CompressiveMemory(
        width, window=window, compressed=window, compression=MeanPool(4), heads=heads
    ),
    "memorizing-attention": lambda width, heads, window: MemorizingAttention(
        width, window=window, slots=8 * window, combination=HeadGate(heads), heads=heads
    ),
    "linear-attention": lambda width, heads, _: Mixer(LinearAttention(width, **_sizes(width, heads))),
    "delta-rule": lambda width, heads, _: Mixer(DeltaRule(width, **_sizes(width, heads))),
    "gated-delta": lambda width, heads, _: Mixer(GatedDelta(width, **_sizes(width, heads))),
    "kimi-delta": lambda width, heads, _: Mixer(KimiDelta(width, **_sizes(width, heads))),
    "gated-delta-2": lambda width, heads, _: Mixer(GatedDelta2(width, **_sizes(width, heads))),
    "titans": lambda width, heads, _: Mixer(Titans(width, **_sizes(width, heads))),
    "atlas": lambda width, heads, _: Mixer(Atlas(width, **_sizes(width, heads))),
    "titans-mac": lambda width, heads, window: MemoryAsContext(
        Titans(width, **_sizes(width, heads)), segment=_short(window), heads=heads
    ),
    "titans-mag": lambda width, heads, window: MemoryAsGate(
        Mixer(Titans(width, **_sizes(width, heads))), RotaryAttention(width, heads, _short(window))
    ),
    "titans-mal": lambda width, heads, window: MemoryAsLayer(
        Mixer(Titans(width, **_sizes(width, heads))), RotaryAttention(width, heads, _short(window))
    ),
    "ttt-linear": lambda width, heads, _: Mixer(TTTLinear(width, heads=heads, key_size=width // heads)),
    "ttt-mlp": lambda width, heads, _: Mixer(TTTMLP(width, heads=heads, key_size=width // heads)),
    "continuum": lambda width, heads, _: Mixer(ContinuumMemory(width, heads=heads, key_size=width // heads)),
    "s4d": lambda width, *_: Mixer(S4D(width)),
    "selective-state-space": lambda width, *_: Mixer(SelectiveStateSpace(width)),
    "lstm": lambda width, *_: Recurrent(width, width),
}


def hybrid(
    vocabulary_size: int,
    layers: str | Sequence[str],
    *,
    width: int = 128,
    heads: int = 4,
    window: int | None = None,
    context: int = 256,
) -> Transformer:
    """A language model whose layers remember each in its own way.

    Args:
        layers: their names, in order, in one string or one each; see `LAYERS`.
        width: of the model; a head is width / heads wide.
        window: steps that attention sees; None is `context`. In Titans' wirings it sees, or a segment has, a
            quarter of them, so that there is something for the memory to remember.
        context: how many tokens it is trained and judged on at a time.

    Raises:
        ValueError: a name that is none of `LAYERS`, no name at all, or sizes that do not fit.
    """
    names = layers.split() if isinstance(layers, str) else list(layers)
    if unknown := [name for name in names if name not in LAYERS]:
        raise ValueError(f"layers must be of {', '.join(LAYERS)}, not {unknown[0]!r}")
    if not names:
        raise ValueError(f"layers must name at least one of {', '.join(LAYERS)}")
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, not {width} for {heads}")
    memories = [LAYERS[name](width, heads, window or context) for name in names]
    return Transformer(vocabulary_size, memories, feed_forward_of(width), context)


def _short(window: int) -> int:
    return max(1, window // 4)


def _sizes(width: int, heads: int) -> dict[str, Any]:
    return {"heads": heads, "key_size": width // heads, "value_size": width // heads}
