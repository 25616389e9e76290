"""Fast weights: what all memories of one matrix a head have in common."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from mnemos.memories.base import Projection, Reading, check_sizes
from mnemos.memories.multi_head import MultiHeadMemory
from mnemos.ops.delta_kernels import can_fuse, delta_rule_fused
from mnemos.ops.delta_rule import delta_rule_chunked, delta_rule_loop, unit
from mnemos.ops.features import deterministic_parameter_free, elu_plus_one, sum_to_one


class FastWeightState(NamedTuple):
    """What a matrix a head remembers."""

    weights: Float[Tensor, "batch heads width keys"]  # W_t (S_t), the fast weights; never below float32


class Change(NamedTuple):
    """What the pairs of a stretch do to the matrix: `ops.delta_rule`, w = committed ⊙ v, e = erased ⊙ k."""

    values: Float[Tensor, "batch time heads width"]  # v
    committed: Float[Tensor, "batch time heads #width"]
    erased: Float[Tensor, "batch time heads #keys"] | None  # the same tensor where one number is both
    log_decay: Float[Tensor, "batch time heads #keys"] | None = None


@dataclass(frozen=True)
class FeatureMap:
    """How keys and queries address a matrix; made of functions that have a name.

    Args:
        activation: what the slow network does to a projected key, after its linear map.
        features: what every key and query goes through, those given to `write` and `read` too:
            (*shape, key_size) to (*shape, key_size x growth).
        growth: features for each channel of a key.
    """

    activation: Callable[[Tensor], Tensor]
    features: Callable[[Tensor], Tensor]
    growth: int = 1


def unit_length() -> FeatureMap:
    """SiLU, then length one: Yang et al. 2024. A repeated key has its value replaced exactly."""
    return FeatureMap(functional.silu, unit)


def positive() -> FeatureMap:
    """ELU + 1: Katharopoulos et al. 2020."""
    return FeatureMap(_as_it_is, elu_plus_one)


def positive_sum() -> FeatureMap:
    """ELU + 1 with a sum of one, the baseline of Schlag et al. 2021."""
    return FeatureMap(_as_it_is, _positive_sum)


def dpfp(shifts: int = 1) -> FeatureMap:
    """Schlag et al. 2021's own map, of 2 x `shifts` features a channel with a sum of one."""
    check_sizes(shifts=shifts)
    return FeatureMap(_as_it_is, partial(_dpfp_sum, shifts=shifts), 2 * shifts)


def logistic() -> FeatureMap:
    """The logistic function of Schmidhuber 1992."""
    return FeatureMap(_as_it_is, torch.sigmoid)


class FastWeights(MultiHeadMemory):
    """A matrix for each head, written by a slow network with outer products and read by products.

    In `write` and `read` nothing is projected, but keys and queries go through the feature map. Like every
    addressable memory, `forward` reads before it writes: a step gets W_{t-1} q_t where the papers have
    W_t q_t, the same but for the pair that it writes itself. Short convolutions, output norm and output gate
    are left to the network around it.

    A concrete class adds the layers of its gates (`add_gates`) and says what they give (`gates`).

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent matrices.
        key_size: width of a head's keys: with `unit_length`, about how many associations it holds.
        value_size: width of a head's values.
        feature_map: `unit_length()`, `dpfp(shifts)`, `positive()`, `positive_sum()`, `logistic()`, or one of
            your own; None is `default_map`, which is `unit_length()` where a class says nothing else.
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
        feature_map: FeatureMap | None = None,
        chunk_size: int = 32,
    ) -> None:
        super().__init__(
            input_size,
            output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            chunk_size=chunk_size,
        )
        self.feature_map, self.chunk_size = feature_map, chunk_size
        self.addressing = self.default_map() if feature_map is None else feature_map
        self.add_maps()
        self.add_gates(heads * key_size * self.addressing.growth)

    @staticmethod
    def default_map() -> FeatureMap:
        """What `feature_map` None means."""
        return unit_length()

    @abstractmethod
    def add_gates(self, channels: int) -> None:
        """Adds the layers that set the gates.

        Args:
            channels: features of a key, all heads together.
        """

    @abstractmethod
    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """The gates that the slow network sets, by their names as arguments of `write`."""

    def initial_state(self, batch_size: int) -> FastWeightState:
        """Matrices of zeros, which answer zero."""
        channels = self.key_size * self.addressing.growth
        return FastWeightState(self.zeros(batch_size, self._width(), channels))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: FastWeightState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], FastWeightState]:
        state, real, _ = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(-1), inputs, 0)  # padding may hold anything, NaN included
        queries, keys, values, gates = self.project(inputs)
        read, state = self._run(state, queries, keys, values, gates, real, reset)
        return torch.where(real.unsqueeze(-1), self.emit(self.answer(read).flatten(2)), 0), state

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        """The slow network: queries, keys, values and gates."""
        activation = self.addressing.activation
        queries, keys = activation(self.query(inputs)), activation(self.key(inputs))
        return Projection(queries, keys, self.value(inputs), self.gates(inputs))

    def write(
        self,
        state: FastWeightState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time *heads"] | None = None,
        erased: Float[Tensor, "batch time heads #channels"] | None = None,
        committed: Float[Tensor, "batch time heads #rows"] | None = None,
        log_decay: Float[Tensor, "batch time heads #channels"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> FastWeightState:
        """Writes pairs one after the other.

        Args:
            strength: β in [0, 1], one for all heads or one for each: how far an answer moves, both ways of
                it, erasing and writing. None is 1.
            erased: the share of each channel of a key whose old answer is taken away. None is 1.
            committed: the share of each channel of a value that is written. None is 1.
            log_decay: the logarithm, at most 0, of the share of the matrix that is kept, for each head or for
                each channel of its keys; with strength 0 too. None keeps all.
        """
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        strength = keys.new_ones(keys.shape[:2]) if strength is None else strength
        strength = strength if strength.dim() == 3 else strength.unsqueeze(-1)
        given = {
            "strength": strength.expand(*real.shape, self.heads),
            "erased": erased,
            "committed": committed,
            "log_decay": log_decay,
        }
        gates = {name: gate for name, gate in given.items() if gate is not None}
        keys, values = (torch.where(real.unsqueeze(-1), x, 0) for x in (keys, values))
        return self._run(state, keys, keys, values, gates, real, None)[1]

    def read(self, state: FastWeightState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """Answers W q for each head.

        The slots of a matrix are the coordinates of its keys after the feature map, numbered through all
        heads: coordinate i of the query is the weight with which column i counted. It can be negative.
        """
        with torch.autocast(queries.device.type, enabled=False):
            asked = self._features(queries.to(state.weights.dtype))
            values = self.answer(torch.einsum("bhwk,bthk->bthw", state.weights, asked)).flatten(2)
        weights = asked.flatten(2)
        slots = torch.arange(weights.shape[2], device=weights.device).expand(weights.shape)
        return Reading(values, weights, slots)

    def change(
        self,
        keys: Float[Tensor, "batch time heads keys"],
        values: Float[Tensor, "batch time heads width"],
        *,
        strength: Float[Tensor, "batch time heads"] | None = None,
        erased: Float[Tensor, "batch time heads #keys"] | None = None,
        committed: Float[Tensor, "batch time heads #width"] | None = None,
        log_decay: Float[Tensor, "batch time heads #keys"] | None = None,
    ) -> Change:
        """What pairs do to the matrix, their keys after the feature map; gates as `write` has them.

        Where all gates are zero nothing is to change: that is a masked step.
        """
        whole = torch.ones_like(keys[..., :1]) if strength is None else strength.unsqueeze(-1)
        committed, erased = (
            whole if gate is None else gate if strength is None else whole * gate
            for gate in (committed, erased)
        )
        return Change(values, committed, erased, log_decay)

    def answer(self, read: Float[Tensor, "batch time heads read"]) -> Float[Tensor, "batch time heads width"]:
        """What a product with the matrix says, for memories that keep more in it than values."""
        return read

    def _run(
        self,
        state: FastWeightState,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        gates: Mapping[str, Tensor],
        real: Tensor,
        reset: Tensor | None,
    ) -> tuple[Tensor, FastWeightState]:
        """The recurrence in the state's precision: what products with the matrix gave, and the state."""
        dtype = state.weights.dtype
        fused = not self.naive and can_fuse(queries, keys, values, state.weights)
        run = delta_rule_loop if self.naive else partial(delta_rule_chunked, chunk_size=self.chunk_size)
        with torch.autocast(keys.device.type, enabled=False):  # the solve loses its meaning in bfloat16
            queries, keys = self._features(queries.to(dtype)), self._features(keys.to(dtype))
            values = self.split(values.to(dtype))
            closed = {  # where every gate is zero, nothing changes
                name: torch.where(real.view(*real.shape, *[1] * (gate.dim() - 2)), gate.to(dtype), 0)
                for name, gate in gates.items()
            }
            values, committed, erased, log_decay = self.change(keys, values, **closed)
            if fused:
                read, weights = delta_rule_fused(
                    queries,
                    keys,
                    values,
                    state.weights,
                    committed=committed,
                    erased=erased,
                    log_decay=log_decay,
                    reset=reset,
                )
            else:
                read, weights = run(
                    queries,
                    keys,
                    committed * values,
                    None if erased is None else erased * keys,
                    state.weights,
                    log_decay=log_decay,
                    reset=reset,
                    read_first=True,
                )
        return read, FastWeightState(weights)

    def _features(self, x: Tensor) -> Tensor:
        return self.addressing.features(self.split(x))

    def _width(self) -> int:
        """Rows of a matrix."""
        return self.value_size


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _positive_sum(x: Tensor) -> Tensor:
    return sum_to_one(elu_plus_one(x))


def _dpfp_sum(x: Tensor, shifts: int) -> Tensor:
    return sum_to_one(deterministic_parameter_free(x, shifts))
