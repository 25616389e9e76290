"""The delta rule as a layer: DeltaNet."""

from functools import partial
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import AddressableMemory, Reading, check_sizes
from mnemos.ops.delta_rule import delta_rule_chunked, delta_rule_loop, unit


class DeltaRuleState(NamedTuple):
    """What a `DeltaRule` remembers."""

    weights: Float[Tensor, "batch heads width keys"]  # W_t, the fast weights; never below float32


@final
class DeltaRule(AddressableMemory):
    """One matrix per head that is taught pair by pair, each time only what it did not already know.

    Schlag, Irie & Schmidhuber 2021, in the parallel form of Yang et al. 2024, "Parallelizing Linear
    Transformers with the Delta Rule over Sequence Length". A key that comes again has its value corrected;
    what lies under other keys suffers as far as they are not orthogonal to it.

    As in Yang et al., keys and queries are linear maps of the input through SiLU, scaled to length one, and
    the strength is a sigmoid. Short convolutions, output norm and output gate are left to the network around
    it. Like every addressable memory, `forward` reads before it writes: a step gets W_{t-1} q_t where the
    papers have W_t q_t, the same but for the pair that it writes itself.

    In `write` and `read`, a key is the keys of all heads side by side (heads * key_size), and so is a value
    (heads * value_size); nothing is projected. Keys and queries are scaled to length one in each head, so
    that after strength 1 a key answers exactly what was written; a key of zeros writes nothing.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent matrices.
        key_size: width of a head's keys: about how many associations it holds.
        value_size: width of a head's values.
        chunk_size: steps computed together. A matter of speed only.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int = 64,
        value_size: int = 64,
        chunk_size: int = 32,
    ) -> None:
        super().__init__()
        output_size = input_size if output_size is None else output_size
        check_sizes(
            input_size=input_size,
            output_size=output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            chunk_size=chunk_size,
        )
        self.input_size, self.output_size = input_size, output_size
        self.heads, self.key_size, self.value_size, self.chunk_size = heads, key_size, value_size, chunk_size
        self.naive = False
        self.query = nn.Linear(input_size, heads * key_size, bias=False)
        self.key = nn.Linear(input_size, heads * key_size, bias=False)
        self.value = nn.Linear(input_size, heads * value_size, bias=False)
        self.strength = nn.Linear(input_size, heads)  # β before the sigmoid
        self.output = nn.Linear(heads * value_size, output_size, bias=False)

    def initial_state(self, batch_size: int) -> DeltaRuleState:
        """Matrices of zeros, which answer zero."""
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        shape = (batch_size, self.heads, self.value_size, self.key_size)
        return DeltaRuleState(self._origin.new_zeros(shape, dtype=dtype))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: DeltaRuleState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], DeltaRuleState]:
        state, real, _ = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(-1), inputs, 0)  # padding may hold anything, NaN included
        queries, keys, values, strength = self.project(inputs)
        read, state = self._run(state, queries, keys, values, strength * real.unsqueeze(-1), reset)
        return torch.where(real.unsqueeze(-1), self.emit(read), 0), state

    def project(
        self, inputs: Float[Tensor, "batch time input"]
    ) -> tuple[
        Float[Tensor, "batch time keys"],
        Float[Tensor, "batch time keys"],
        Float[Tensor, "batch time width"],
        Float[Tensor, "batch time heads"],
    ]:
        """The slow network: queries, keys, values, and β in (0, 1) for each head."""
        queries, keys = functional.silu(self.query(inputs)), functional.silu(self.key(inputs))
        return queries, keys, self.value(inputs), self.strength(inputs).sigmoid()

    def emit(self, values: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time output"]:
        return self.output(values.to(self.output.weight.dtype))

    def write(
        self,
        state: DeltaRuleState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time *heads"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> DeltaRuleState:
        """Writes pairs one after the other.

        Args:
            strength: β in [0, 1], one for all heads or one for each: 1 replaces what the key answered,
                0.5 moves it half way.
        """
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        given = keys.new_ones(keys.shape[:2]) if strength is None else strength
        given = given if given.dim() == 3 else given.unsqueeze(-1)
        keys, values = (torch.where(real.unsqueeze(-1), x, 0) for x in (keys, values))
        strengths = torch.where(real.unsqueeze(-1), given, 0)
        return self._run(state, keys, keys, values, strengths.expand(*real.shape, self.heads), None)[1]

    def read(self, state: DeltaRuleState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """Answers W q for each head.

        The slots of a matrix are the coordinates of its keys, numbered through all heads: coordinate i of the
        scaled query is the weight with which column i counted. It can be negative.
        """
        with torch.autocast(queries.device.type, enabled=False):
            split = unit(self._heads(queries).to(state.weights.dtype))
            values = torch.einsum("bhwk,bthk->bthw", state.weights, split).flatten(2)
        weights = split.flatten(2)
        slots = torch.arange(weights.shape[2], device=weights.device).expand(weights.shape)
        return Reading(values, weights, slots)

    def _run(
        self,
        state: DeltaRuleState,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        strengths: Tensor,
        reset: Tensor | None,
    ) -> tuple[Tensor, DeltaRuleState]:
        """The recurrence in the state's precision: what was read, (batch, time, width), and the state."""
        dtype = state.weights.dtype
        run = delta_rule_loop if self.naive else partial(delta_rule_chunked, chunk_size=self.chunk_size)
        with torch.autocast(keys.device.type, enabled=False):  # the solve loses its meaning in bfloat16
            queries, keys = (unit(self._heads(x).to(dtype)) for x in (queries, keys))
            values, strengths = self._heads(values).to(dtype), strengths.to(dtype)
            read, weights = run(queries, keys, values, strengths, state.weights, reset, read_first=True)
        return read.flatten(2), DeltaRuleState(weights)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))
