"""A small decoder-only transformer whose attention layers are injected memories.

Each layer's memory carries its own state, so the model's state is the tuple of its layers' states:
the model can be fed a text in pieces of any size, and every law that holds for its memories holds for
it. With `RotaryAttention` this is an ordinary transformer with a sliding window.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch.nn.functional as F  # noqa: N812  (the usual name)
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mnemos.memories.base import Memory


class Features(NamedTuple):
    """What the model makes of every step."""

    logits: Float[Tensor, "batch time vocabulary"]
    keys: Float[Tensor, "batch time width"]  # input of the last feed-forward layer: Khandelwal 2020's f(x)


class Block(nn.Module):
    """One layer: a memory, then a SwiGLU feed-forward network (Shazeer 2020), each after an RMSNorm."""

    def __init__(self, memory: Memory, feed_forward: int) -> None:
        super().__init__()
        width = memory.input_size
        self.memory = memory
        self.before_memory, self.before_feed_forward = nn.RMSNorm(width), nn.RMSNorm(width)
        self.to_hidden = nn.Linear(width, 2 * feed_forward, bias=False)
        self.to_outputs = nn.Linear(feed_forward, width, bias=False)

    def forward(
        self, inputs: Tensor, state: Any, mask: Tensor | None, reset: Tensor | None
    ) -> tuple[Float[Tensor, "batch time width"], Float[Tensor, "batch time width"], Any]:
        """Outputs, the normalised input of the feed-forward network, and the memory's state."""
        read, state = self.memory(self.before_memory(inputs), state, mask=mask, reset=reset)
        inputs = inputs + read
        normalised = self.before_feed_forward(inputs)
        gate, hidden = self.to_hidden(normalised).chunk(2, dim=-1)
        return inputs + self.to_outputs(F.silu(gate) * hidden), normalised, state


@final
class Transformer(nn.Module):
    """A decoder-only language model over injected memories, with tied embeddings.

    Args:
        vocabulary_size: number of tokens. By convention of this library the last of them is none of
            the tokenizer's, but marks the start of a document: see `start`.
        memories: one per layer, `input_size` and `output_size` all alike, which is the model's width.
        feed_forward: hidden width of the feed-forward networks.
        context: how many tokens it is trained and judged on at a time.
    """

    def __init__(
        self, vocabulary_size: int, memories: Sequence[Memory], feed_forward: int, context: int = 256
    ) -> None:
        super().__init__()
        widths = {size for memory in memories for size in (memory.input_size, memory.output_size)}
        if len(widths) != 1:
            raise ValueError(f"memories must have one width in common for inputs and outputs, not {widths}")
        self.vocabulary_size, self.feed_forward = vocabulary_size, feed_forward
        self.context, self.width = context, widths.pop()
        self.embedding = nn.Embedding(vocabulary_size, self.width)
        self.blocks = nn.ModuleList(Block(memory, feed_forward) for memory in memories)
        self.last_norm = nn.RMSNorm(self.width)
        nn.init.normal_(self.embedding.weight, std=0.02)  # it is the output layer too: small logits at first

    @property
    def start(self) -> int:
        """The token that marks the start of a document."""
        return self.vocabulary_size - 1

    @property
    def memories(self) -> list[Memory]:
        """The memory of each layer."""
        return [block.memory for block in self.blocks if isinstance(block, Block)]

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        return tuple(memory.initial_state(batch_size) for memory in self.memories)

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        state: tuple[Any, ...] | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time vocabulary"], tuple[Any, ...]]:
        """Logits of every next token, and the state; `state`, `mask`, `reset` as in `Memory.forward`."""
        features, state = self.features(tokens, state, mask=mask, reset=reset)
        return features.logits, state

    def features(
        self,
        tokens: Int[Tensor, "batch time"],
        state: tuple[Any, ...] | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Features, tuple[Any, ...]]:
        """As `forward`, with the vectors under which a nearest-neighbour memory keeps each step."""
        hidden = self.embedding(tokens)
        normalised, states = hidden, []
        for block, before in zip(self.blocks, state or [None] * len(self.blocks), strict=True):
            hidden, normalised, after = block(hidden, before, mask, reset)
            states.append(after)
        logits = F.linear(self.last_norm(hidden), self.embedding.weight)
        return Features(logits, normalised), tuple(states)


def feed_forward_of(width: int) -> int:
    """Hidden width of a feed-forward network beside a width: about 8/3 of it, in whole 32s, at least one."""
    return max(1, round(8 * width / 3 / 32)) * 32
