"""A large table of values, of which every step reads a few by product keys."""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import Memory, Reading, check_sizes
from mnemos.memories.value_table import Values, ValueTable
from mnemos.ops.product_key import product_top_k, product_top_k_naive
from mnemos.tree import reset_rows, where_rows


class ProductKeyState(NamedTuple):
    """The content of a `ProductKey` is in its parameters; this says what was used."""

    usage: Int[Tensor, "batch slots"]  # int32, readings of each slot; no slots where they are not counted


@final
class SiluGate(nn.Module):
    """The gate of a memory layer: (silu(x W1) ⊙ y) W2 for inputs x and read values y.

    Berges et al. 2024, "Memory Layers at Scale".
    """

    def __init__(self, input_size: int, value_size: int, output_size: int) -> None:
        super().__init__()
        self.input_size, self.value_size, self.output_size = input_size, value_size, output_size
        self.gate = nn.Linear(input_size, value_size, bias=False)  # W1
        self.output = nn.Linear(value_size, output_size, bias=False)  # W2

    def forward(
        self, inputs: Float[Tensor, "batch time input"], values: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time output"]:
        return self.output(functional.silu(self.gate(inputs)) * values)


@final
class ProductKey(Memory):
    """Millions of slots that learn, of which a step reads heads times top_k.

    Lample et al. 2019, "Large Memory Layers with Product Keys"; with a `SiluGate` and values shared between
    layers, the Memory+ of Berges et al. 2024, "Memory Layers at Scale". The score of a slot is the product
    of a query with the slot's key, which is a pair of half-keys; the weights are the softmax of the best
    scores of each head; the output is the sum of the values of all heads, or what the gate makes of it.
    The cost of a step grows with the square root of the number of slots.

    Both halves of a query, and all half-keys, are normalised by themselves (LayerNorm, for queries with a
    learned scale and shift), and scores are divided by the root of their width. Lample et al. use BatchNorm
    on the queries, which spreads usage, but mixes the rows of a batch, padding included, and sees ahead in
    time.

    It learns by gradient alone, and nothing is written to it. Its state counts how often each slot was read.

    Args:
        half_keys: n; there are n² slots.
        value_size: width of a value, which is that of the output where there is no gate.
        heads: readers, each with queries and keys of its own; they share the values.
        top_k: slots that each head reads.
        key_size: width of a key, both halves together; even, at least 6.
        values: where the values lie; None is a `ValueTable` of one's own.
        gate: from inputs and read values to outputs; None leaves the values as they are.
        count_usage: false saves the copy of the counts, of 4 n² bytes for each row, that every call makes.
    """

    def __init__(
        self,
        input_size: int,
        half_keys: int,
        value_size: int,
        *,
        heads: int = 4,
        top_k: int = 32,
        key_size: int = 256,
        values: Values | None = None,
        gate: SiluGate | None = None,
        count_usage: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(
            input_size=input_size,
            half_keys=half_keys,
            value_size=value_size,
            heads=heads,
            top_k=top_k,
        )
        if top_k > half_keys**2:
            raise ValueError(f"top_k must be at most half_keys², which is {half_keys**2}, not {top_k}")
        if key_size < 6 or key_size % 2:  # two numbers, once normalised, say no more than which is greater
            raise ValueError(f"key_size must be even and at least 6, not {key_size}")
        if values is not None and (values.slots, values.width) != (half_keys**2, value_size):
            raise ValueError(
                f"values must be {half_keys**2} of width {value_size}, not {values.slots} of {values.width}"
            )
        self.input_size, self.half_keys, self.value_size = input_size, half_keys, value_size
        self.heads, self.top_k, self.key_size = heads, top_k, key_size
        self.gate, self.count_usage = gate, count_usage
        self.values = ValueTable(half_keys**2, value_size) if values is None else values
        self.output_size = value_size if gate is None else gate.output_size
        self.naive = False
        width = key_size // 2
        self.query = nn.Linear(input_size, heads * key_size)
        self.query_norm = nn.LayerNorm(width)
        self.keys = nn.Parameter(torch.randn(2, heads, half_keys, width))

    def initial_state(self, batch_size: int) -> ProductKeyState:
        """Nothing was read."""
        slots = self.half_keys**2 if self.count_usage else 0
        return ProductKeyState(self._origin.new_zeros(batch_size, slots, dtype=torch.int32))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: ProductKeyState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], ProductKeyState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = inputs.masked_fill(~real.unsqueeze(-1), 0)  # padding may hold anything, NaN included
        reading = self.read(inputs)
        outputs = reading.values if self.gate is None else self.gate(inputs, reading.values)
        count = self._count_naive if self.naive else self._count
        after = count(state, reading.slots, real, fresh) if self.count_usage else state
        return outputs.masked_fill(~real.unsqueeze(-1), 0), after

    def read(self, inputs: Float[Tensor, "batch time input"]) -> Reading:
        """What each input reads, the heads side by side; a slot that two heads read stands there twice."""
        first, second = self._half_scores(inputs)
        top_k = product_top_k_naive if self.naive else product_top_k
        scores, slots = top_k(first, second, self.top_k)  # (heads, batch, time, top_k)
        weights, slots = (x.movedim(0, 2).flatten(2) for x in (scores.softmax(-1), slots))
        return Reading(self._sum(slots, weights), weights, slots)

    def _half_scores(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of first and of second half-keys, each (heads, batch, time, half_keys)."""
        queries = self.query_norm(self.query(inputs).unflatten(-1, (2, self.heads, -1)))
        keys = functional.layer_norm(self.keys, self.keys.shape[-1:]) * self.keys.shape[-1] ** -0.5
        # Ranked and weighed in full precision: in half precision most of a head's scores would be ties.
        full = torch.promote_types(keys.dtype, torch.float32)
        first, second = (
            (half.flatten(0, 1).transpose(0, 1).to(key.dtype) @ key.mT)
            .to(full)
            .unflatten(1, inputs.shape[:2])
            for half, key in zip(queries.unbind(2), keys.unbind(0), strict=True)
        )
        return first, second

    def _sum(self, slots: Tensor, weights: Tensor) -> Tensor:
        if not self.naive:
            return self.values(slots, weights)
        one = weights.new_ones(*weights.shape[:-1], 1)
        pairs = zip(slots.split(1, -1), weights.split(1, -1), strict=True)
        return torch.stack([weight * self.values(slot, one) for slot, weight in pairs]).sum(0)

    def _count(self, state: ProductKeyState, slots: Tensor, real: Tensor, fresh: Tensor) -> ProductKeyState:
        """Counts what each row read since its last reset."""
        resets = fresh.to(torch.int32)
        still_to_come = resets.flip(1).cumsum(1).flip(1) - resets
        counted = (real & (still_to_come == 0)).to(torch.int32)
        kept = state.usage.masked_fill(fresh.any(1, keepdim=True), 0)
        readings = counted.unsqueeze(-1).expand(slots.shape).flatten(1)
        return ProductKeyState(kept.scatter_add_(1, slots.flatten(1), readings))

    def _count_naive(
        self, state: ProductKeyState, slots: Tensor, real: Tensor, fresh: Tensor
    ) -> ProductKeyState:
        for read, step, starts in zip(slots.unbind(1), real.unbind(1), fresh.unbind(1), strict=True):
            state = reset_rows(state, starts, self.initial_state(1))
            readings = functional.one_hot(read, self.half_keys**2).sum(1)
            state = where_rows(step, ProductKeyState(state.usage + readings.to(torch.int32)), state)
        return state
