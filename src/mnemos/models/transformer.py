"""A small decoder-only transformer whose attention layers are injected memories.

Each layer's memory carries its own state, so the model's state is the tuple of its layers' states:
the model can be fed a text in pieces of any size, and every law that holds for its memories holds for
it. With `RotaryAttention` this is an ordinary transformer with a sliding window.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F  # noqa: N812  (the usual name)
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mnemos.memories.base import Memory
from mnemos.ops.rotary import rotate
from mnemos.tree import reset_rows, where_rows


class RotaryState(NamedTuple):
    """The last `window - 1` real steps, the latest last; what is not `filled` was never seen."""

    keys: Float[Tensor, "batch slots heads keys"]
    values: Float[Tensor, "batch slots heads keys"]
    filled: Bool[Tensor, "batch slots"]


@final
class RotaryAttention(Memory):
    """Causal self-attention with rotary positions (Su et al. 2021) over a sliding window.

    Every step attends to itself and to the `window - 1` real steps before it. Keys are kept before
    their rotation, which is applied relative to the piece at hand: positions never grow large.

    Args:
        input_size: width of inputs and outputs, a multiple of 2 x heads.
        window: how many steps a step sees, itself included, at least 1.
    """

    def __init__(self, input_size: int, heads: int, window: int, base: float = 10_000.0) -> None:
        super().__init__()
        if heads < 1 or input_size % (2 * heads):
            raise ValueError(f"input_size must be a multiple of 2 x heads, not {input_size} for {heads}")
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        self.input_size = self.output_size = input_size
        self.heads, self.window, self.base = heads, window, base
        self.naive = False
        self.to_queries_keys_values = nn.Linear(input_size, 3 * input_size, bias=False)
        self.to_outputs = nn.Linear(input_size, input_size, bias=False)

    def initial_state(self, batch_size: int) -> RotaryState:
        keys = self._origin.new_zeros(batch_size, self.window - 1, self.heads, self.input_size // self.heads)
        return RotaryState(keys, keys, keys.new_zeros(keys.shape[:2], dtype=torch.bool))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: RotaryState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], RotaryState]:
        whole = state is None and mask is None and reset is None and inputs.shape[1] <= self.window
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = inputs.masked_fill(~real.unsqueeze(2), 0)  # whatever padding holds, it weighs nothing
        projected = self.to_queries_keys_values(inputs).unflatten(2, (3, self.heads, -1))
        queries, keys, values = projected.unbind(2)
        if self.naive:
            outputs, state = self._loop(queries, keys, values, state, real, fresh)
            return self.to_outputs(outputs.flatten(2)) * real.unsqueeze(2), state
        slots = state.filled.shape[1]
        episodes = F.pad(fresh.cumsum(1), (slots, 0))
        filled = torch.cat([state.filled, real], dim=1)
        all_keys, all_values = torch.cat([state.keys, keys], dim=1), torch.cat([state.values, values], dim=1)
        positions = filled.cumsum(1) - 1
        if whole:  # an ordinary transformer: nothing is carried, and the causal kernel needs no mask
            now = positions[:, slots:]
            outputs = self._attend(queries, keys, values, now, now, None)
        else:
            visible = self._visible(positions, episodes, filled, slots)
            outputs = self._attend(queries, all_keys, all_values, positions[:, slots:], positions, visible)
        outputs = self.to_outputs(outputs.flatten(2)) * real.unsqueeze(2)
        kept = filled & (episodes == episodes[:, -1:])
        return outputs, self._latest(all_keys, all_values, kept)

    def _loop(
        self, queries: Tensor, keys: Tensor, values: Tensor, state: RotaryState, real: Tensor, fresh: Tensor
    ) -> tuple[Float[Tensor, "batch time heads keys"], RotaryState]:
        """One step after the other: the specification of what `forward` does at once."""
        outputs = []
        slots = state.filled.shape[1]
        positions = torch.arange(slots + 1, device=queries.device).expand(len(queries), -1)
        for query, key, value, is_real, is_fresh in zip(
            *(part.unbind(1) for part in (queries, keys, values, real, fresh)), strict=True
        ):
            state = reset_rows(state, is_fresh, self.initial_state(len(query)))
            seen_keys = torch.cat([state.keys, key.unsqueeze(1)], dim=1)
            seen_values = torch.cat([state.values, value.unsqueeze(1)], dim=1)
            filled = torch.cat([state.filled, torch.ones_like(is_real).unsqueeze(1)], dim=1)
            turned = rotate(query.unsqueeze(1), positions[:, slots:], self.base).squeeze(1)
            products = torch.einsum("bhk,bshk->bhs", turned, rotate(seen_keys, positions, self.base))
            scores = (products / query.shape[-1] ** 0.5).masked_fill(~filled.unsqueeze(1), -torch.inf)
            outputs.append(torch.einsum("bhs,bshk->bhk", scores.softmax(-1), seen_values))
            after = RotaryState(seen_keys[:, 1:], seen_values[:, 1:], filled[:, 1:])
            state = where_rows(is_real, after, state)
        return torch.stack(outputs, dim=1) if outputs else queries, state

    def _visible(
        self, positions: Tensor, episodes: Tensor, filled: Tensor, slots: int
    ) -> Bool[Tensor, "batch 1 time seen"]:
        distance = positions[:, slots:, None] - positions[:, None, :]
        order = torch.arange(positions.shape[1], device=positions.device)
        near = (order[slots:, None] >= order) & (distance < self.window)
        same = episodes[:, slots:, None] == episodes[:, None, :]
        # A masked step sees itself, since a row without anything to see is not a number.
        itself = order[slots:, None] == order
        return ((near & same & filled[:, None, :]) | itself).unsqueeze(1)

    def _attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        query_positions: Tensor,
        key_positions: Tensor,
        visible: Tensor | None,
    ) -> Float[Tensor, "batch time heads keys"]:
        attended = F.scaled_dot_product_attention(
            rotate(queries, query_positions, self.base).transpose(1, 2),
            rotate(keys, key_positions, self.base).transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=visible,
            is_causal=visible is None,
        )
        return attended.transpose(1, 2)

    def _latest(self, keys: Tensor, values: Tensor, kept: Tensor) -> RotaryState:
        """The last `window - 1` kept steps of each row, moved together at the end."""
        slots = self.window - 1
        order = kept.long().argsort(dim=1, stable=True)[:, kept.shape[1] - slots :]
        index = order[:, :, None, None].expand(-1, -1, *keys.shape[2:])
        filled = kept.gather(1, order)
        present = filled[:, :, None, None]
        return RotaryState(keys.gather(1, index) * present, values.gather(1, index) * present, filled)


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


def small_transformer(
    vocabulary_size: int, *, width: int = 128, layers: int = 2, heads: int = 4, context: int = 256
) -> Transformer:
    """A transformer with rotary attention and a feed-forward width of about 8/3 of its own width."""
    memories = [RotaryAttention(width, heads, window=context) for _ in range(layers)]
    return Transformer(vocabulary_size, memories, feed_forward_of(width), context)


def feed_forward_of(width: int) -> int:
    """Hidden width of a feed-forward network beside a width: about 8/3 of it, in whole 32s, at least one."""
    return max(1, round(8 * width / 3 / 32)) * 32
