"""Attention that carries a window of what it has seen: Transformer-XL."""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mnemos.memories.base import Memory, check_sizes
from mnemos.ops.documents import pick, real_last
from mnemos.ops.relative_attention import relative_attention, relative_attention_naive, sinusoids


class SegmentAttentionState(NamedTuple):
    """The last steps of a row, the latest last; where nothing is `filled`, zeros."""

    inputs: Float[Tensor, "batch slots input"]  # m, the hidden states below the layer
    filled: Bool[Tensor, "batch slots"]


@final
class SegmentAttention(Memory):
    """Attention by content and by relative distance over a window carried from segment to segment.

    Dai et al. 2019, "Transformer-XL: Attentive Language Models beyond a Fixed-Length Context". Every step
    attends to itself and to the `window` real steps of its document before it, whichever way the sequence
    is cut into segments. Distances count real steps: padding takes no room. A stack of L layers reaches
    L x window steps back.

    As in the paper, what is carried are the layer's inputs, so that the keys and values of old steps are
    made by the present weights, which learn from them. The paper stops the gradient between segments: call
    `mnemos.detach(state)` there. Without it the gradient flows on into the segments before.

    Args:
        output_size: width of the output; None means `input_size`.
        window: how many steps are carried, at least 1 (the paper's memory length).
        heads: attention heads.
        key_size: width of a head's keys and values; None means input_size // heads.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        window: int,
        heads: int = 1,
        key_size: int | None = None,
    ) -> None:
        super().__init__()
        output_size = input_size if output_size is None else output_size
        key_size = input_size // max(heads, 1) if key_size is None else key_size
        check_sizes(
            input_size=input_size,
            output_size=output_size,
            window=window,
            heads=heads,
            key_size=key_size,
        )
        self.input_size, self.output_size = input_size, output_size
        self.window, self.heads, self.key_size = window, heads, key_size
        self.naive = False
        self.query = nn.Linear(input_size, heads * key_size, bias=False)
        self.key = nn.Linear(input_size, heads * key_size, bias=False)
        self.value = nn.Linear(input_size, heads * key_size, bias=False)
        self.distance = nn.Linear(input_size, heads * key_size, bias=False)  # W_{k,R}
        self.content_bias = nn.Parameter(torch.zeros(heads, key_size))  # u
        self.position_bias = nn.Parameter(torch.zeros(heads, key_size))  # v
        self.output = nn.Linear(heads * key_size, output_size, bias=False)
        self.register_buffer("_sinusoids", sinusoids(window + 1, input_size), persistent=False)

    def initial_state(self, batch_size: int) -> SegmentAttentionState:
        inputs = self._origin.new_zeros(batch_size, self.window, self.input_size)
        return SegmentAttentionState(inputs, inputs.new_zeros(inputs.shape[:2], dtype=torch.bool))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: SegmentAttentionState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], SegmentAttentionState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(-1), inputs, 0)  # padding may hold anything, NaN included
        seen = torch.cat([state.inputs, inputs], dim=1)
        filled = torch.cat([state.filled, real], dim=1)
        document = torch.cat([torch.zeros_like(state.filled, dtype=torch.int64), fresh.cumsum(1)], dim=1)
        document = document.where(filled, -1)
        if mask is None:
            outputs = self._attend(seen, document)
        else:
            # Real steps are moved together at the end, so that distances count them alone, and back.
            order = real_last(document)
            place = order.argsort(dim=1)[:, self.window :] - self.window  # of the real steps: never below 0
            seen, document = pick(seen, order), document.gather(1, order)
            outputs = pick(self._attend(seen, document), place.clamp_min(0))
        outputs = torch.where(real.unsqueeze(-1), self.output(outputs), 0)
        kept = document[:, inputs.shape[1] :] == fresh.sum(1, keepdim=True)
        carried = torch.where(kept.unsqueeze(-1), seen[:, inputs.shape[1] :], 0)
        return outputs, SegmentAttentionState(carried.to(state.inputs.dtype), kept)

    def _attend(
        self, seen: Float[Tensor, "batch seen input"], document: Int[Tensor, "batch seen"]
    ) -> Float[Tensor, "batch time width"]:
        """What the steps after the first `window` see, all heads side by side."""
        attend = relative_attention_naive if self.naive else relative_attention
        read = attend(
            self._heads(self.query(seen[:, self.window :])),
            self._heads(self.key(seen)),
            self._heads(self.value(seen)),
            self._heads(self.distance(self._sinusoids)),
            self.content_bias,
            self.position_bias,
            document,
        )
        return read.flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.key_size))
