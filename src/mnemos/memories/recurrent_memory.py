"""Memory tokens that go through all layers, from segment to segment: the Recurrent Memory Transformer."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mnemos.memories.segment_recurrence import SegmentRecurrence


class MemoryTokens(NamedTuple):
    """What the last complete segment wrote; zeros before the first."""

    tokens: Float[Tensor, "batch slots width"]  # H^mem
    written: Bool[Tensor, " batch"]


@final
class RecurrentMemory(SegmentRecurrence):
    """A transformer over segments that hands on what it wrote into its memory tokens.

    Bulatov, Kuratov & Burtsev 2022, "Recurrent Memory Transformer", section 3.2, the decoder: a segment is
    read as [memory; segment; memory], the memory twice the same vectors. What the last layer makes of the
    second is the memory of the next segment. The first segment of a document has a memory that is learned.

    No step of a segment sees what is written at its end, so a layer is an ordinary causal one, and without
    slots this is attention within blocks of `segment_size` steps. See `SegmentRecurrence` for the rest.

    Args:
        input_size: width of inputs, outputs and memory tokens, a multiple of 2 x heads.
        segment_size: real steps of a segment.
        slots: memory tokens; 0 carries nothing.
        layers: of attention and feed-forward network, through all of which the memory goes.
        heads: attention heads.
        feed_forward: hidden width of the feed-forward networks; None is twice the input's.
    """

    def __init__(
        self,
        input_size: int,
        *,
        segment_size: int,
        slots: int,
        layers: int = 2,
        heads: int = 1,
        feed_forward: int | None = None,
    ) -> None:
        if slots < 0:
            raise ValueError(f"slots must be at least 0, not {slots}")
        super().__init__(
            input_size,
            segment_size=segment_size,
            slots=slots,
            layers=layers,
            heads=heads,
            feed_forward=feed_forward,
        )
        self.first = nn.Parameter(torch.randn(slots, input_size))

    def nothing(self, batch_size: int) -> MemoryTokens:
        tokens = self._origin.new_zeros(batch_size, self.slots, self.input_size)
        return MemoryTokens(tokens, tokens.new_zeros(batch_size, dtype=torch.bool))

    def tokens(self, memory: MemoryTokens) -> tuple[Tensor, Tensor]:
        tokens = torch.where(memory.written[:, None, None], memory.tokens, self.first)
        return tokens, tokens

    def recall(
        self, memory: MemoryTokens, layer: int, hidden: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        return hidden

    def remember(
        self, memory: MemoryTokens, written: Sequence[Float[Tensor, "batch slots width"]]
    ) -> MemoryTokens:
        return MemoryTokens(written[-1].to(memory.tokens.dtype), torch.ones_like(memory.written))
