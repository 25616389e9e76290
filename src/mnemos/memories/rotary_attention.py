"""Causal self-attention with rotary positions over a sliding window: what most transformers have today."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F  # noqa: N812  (the usual name)
from jaxtyping import Bool, Float
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

    With a `prefix` every step sees a few more vectors besides, without any position, since they stand at no
    distance: Titans' attention with persistent tokens, the SW-Attn* of Behrouz et al. 2025, eq. 27.

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
        prefix: Float[Tensor, "tokens input"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], RotaryState]:
        whole = state is None and mask is None and reset is None and inputs.shape[1] <= self.window
        whole = whole and prefix is None
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = inputs.masked_fill(~real.unsqueeze(2), 0)  # whatever padding holds, it weighs nothing
        queries, keys, values = self._projected(inputs)
        always = None if prefix is None else self._projected(prefix.unsqueeze(0))[1:]
        if self.naive:
            outputs, state = self._loop(queries, keys, values, state, real, fresh, always)
            return self.to_outputs(outputs.flatten(2)) * real.unsqueeze(2), state
        slots = state.filled.shape[1]
        episodes = F.pad(fresh.cumsum(1), (slots, 0))
        filled = torch.cat([state.filled, real], dim=1)
        all_keys, all_values = torch.cat([state.keys, keys], dim=1), torch.cat([state.values, values], dim=1)
        positions = filled.cumsum(1) - 1
        if whole:  # an ordinary transformer: nothing is carried, and the causal kernel needs no mask
            now = positions[:, slots:]
            outputs = self._attend(queries, keys, values, now, now, None, None)
        else:
            visible = self._visible(positions, episodes, filled, slots)
            now = positions[:, slots:]
            outputs = self._attend(queries, all_keys, all_values, now, positions, visible, always)
        outputs = self.to_outputs(outputs.flatten(2)) * real.unsqueeze(2)
        kept = filled & (episodes == episodes[:, -1:])
        return outputs, self._latest(all_keys, all_values, kept)

    def _projected(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values."""
        return self.to_queries_keys_values(inputs).unflatten(2, (3, self.heads, -1)).unbind(2)

    def _loop(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        state: RotaryState,
        real: Tensor,
        fresh: Tensor,
        always: tuple[Tensor, ...] | None,
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
            scores = products.masked_fill(~filled.unsqueeze(1), -torch.inf)
            known = seen_values
            if always is not None:
                first_keys, first_values = (x.expand(len(query), -1, -1, -1) for x in always)
                scores = torch.cat([torch.einsum("bhk,bshk->bhs", query, first_keys), scores], dim=2)
                known = torch.cat([first_values, seen_values], dim=1)
            weights = (scores / query.shape[-1] ** 0.5).softmax(-1)
            outputs.append(torch.einsum("bhs,bshk->bhk", weights, known))
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
        always: tuple[Tensor, ...] | None,
    ) -> Float[Tensor, "batch time heads keys"]:
        turned = rotate(queries, query_positions, self.base)
        keys = rotate(keys, key_positions, self.base)
        width = queries.shape[-1]
        if always is not None and visible is not None:
            # Two products in one: what is turned meets the steps, what is not meets the prefix.
            first_keys, first_values = (x.expand(len(queries), -1, -1, -1) for x in always)
            turned = torch.cat([turned, queries], dim=3)
            keys = torch.cat([F.pad(first_keys, (width, 0)), F.pad(keys, (0, width))], dim=1)
            values = torch.cat([first_values, values], dim=1)
            visible = F.pad(visible, (first_keys.shape[1], 0), value=True)
        attended = F.scaled_dot_product_attention(
            turned.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=visible,
            is_causal=visible is None,
            scale=width**-0.5,
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
