"""The linear associator, or correlation-matrix memory: pairs superposed in one matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mnemos.memories.base import Reading
from mnemos.memories.pairs import PairMemory
from mnemos.ops.association import hebbian, pseudo_inverse_step
from mnemos.ops.delta_rule import delta_rule_chunked
from mnemos.tree import reset_rows, where_rows


class KeysSeen(NamedTuple):
    """What the pseudo-inverse needs to know of the keys written so far, K; never below float64."""

    complement: Float[
        Tensor, "batch keys keys"
    ]  # I - K K⁺, the projection onto what none of them has touched
    inverse: Float[Tensor, "batch keys keys"]  # (K Kᵀ)⁺


class LinearAssociatorState(NamedTuple):
    """What a `LinearAssociator` remembers; never below float32."""

    weights: Float[Tensor, "batch width keys"]  # W
    seen: KeysSeen | tuple[()]  # nothing, where the rule does not ask


Step = Callable[[LinearAssociatorState, Tensor, Tensor, Tensor], LinearAssociatorState]


@dataclass(frozen=True)
class WriteRule:
    """How a pair changes the matrix: data for a `LinearAssociator`, made of functions that have a name.

    Args:
        step: (state, key, value, strength) -> state, one pair in every row; strength 0 changes nothing.
        together: the same for a stretch of pairs, each read before it is written: (queries, keys, values,
            strengths, weights, reset) -> (read, weights). None where a loop is all there is.
        sees_keys: whether the state keeps account of the keys, as `KeysSeen`.
    """

    step: Step
    together: Callable[..., tuple[Tensor, Tensor]] | None = None
    sees_keys: bool = False


def hebb() -> WriteRule:
    """W + s v ⊗ k: the sum of all pairs (Kohonen 1972; Anderson 1972)."""
    return WriteRule(_hebb_step, hebbian)


def delta() -> WriteRule:
    """W + s (v - W k) ⊗ k: what the matrix did not know already (Widrow & Hoff 1960)."""
    return WriteRule(_delta_step, _delta_together)


def pseudo_inverse() -> WriteRule:
    """V K⁺, kept exact pair by pair: what weighted least squares over all pairs answers (Greville 1960)."""
    return WriteRule(_pseudo_inverse_step, sees_keys=True)


@final
class LinearAssociator(PairMemory):
    """One matrix that holds all pairs at once, and answers a query q with W q.

    Kohonen 1972, "Correlation Matrix Memories"; Anderson 1972. Keys are scaled to length one when they are
    written, and their values with them, so that W k = v asks the same as W (k / |k|) = v / |k|. Queries are
    taken as they are: the answer is linear in them. A key shorter than 1e-3 writes the less the shorter it
    is, and a key of zeros nothing. Where all keys are orthogonal, the three rules write the same matrix and
    every answer is exact. They differ in what else they hold, in a space of d = `key_size` dimensions:

    - `hebb`: other keys add cross-talk, 1 / sqrt(d) of a value's length for each random key. A key that is
      written again answers the sum of all its values.
    - `delta`: a key answers its last value exactly, and each write disturbs the keys written before it. So
      one pass of strength 1 over random keys, each written once, recalls *less* than the plain sum: it
      favours what came last. The rule pays where keys come again with new values, which no sum corrects.
    - `pseudo_inverse`: exact for up to d linearly independent keys in whatever order, at the price of two
      matrices of d x d in float64. Beyond d keys, or when a key comes again, it answers the least squares
      solution, in which all pairs count alike (by their strengths): it averages and never overwrites.

    Nothing is learned here. Without `value_size` an input is its own key and value (auto-association); with
    it, an input is a key and a value side by side, and `forward` answers the key from what was known before.

    Args:
        key_size: width of keys and queries.
        value_size: width of values; None where an input is both.
        rule: how a pair is written: `hebb()`, `delta()`, `pseudo_inverse()`, or one of your own.
    """

    def __init__(self, key_size: int, value_size: int | None = None, rule: WriteRule | None = None) -> None:
        super().__init__(key_size, value_size)
        self.rule = hebb() if rule is None else rule
        if self.rule.together is not None:
            self.naive = False

    def initial_state(self, batch_size: int) -> LinearAssociatorState:
        """Matrices of zeros, which answer zero."""
        least = torch.float64 if self.rule.sees_keys else torch.float32  # differences of near equals add up
        dtype = torch.promote_types(self._origin.dtype, least)
        weights = self._origin.new_zeros(batch_size, self.output_size, self.key_size, dtype=dtype)
        if not self.rule.sees_keys:
            return LinearAssociatorState(weights, ())
        nothing = weights.new_zeros(batch_size, self.key_size, self.key_size)
        everything = torch.eye(self.key_size, dtype=dtype, device=weights.device).expand_as(nothing).clone()
        return LinearAssociatorState(weights, KeysSeen(everything, nothing))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: LinearAssociatorState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], LinearAssociatorState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = torch.where(real.unsqueeze(2), inputs, 0)  # padding may hold anything, NaN included
        queries, keys, values, _ = self.project(inputs)
        read, state = self._run(state, queries, keys, values, real.to(inputs), fresh)
        return torch.where(real.unsqueeze(2), self.emit(read), 0), state

    def emit(self, values: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time output"]:
        return values.to(self._origin.dtype)

    def write(
        self,
        state: LinearAssociatorState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> LinearAssociatorState:
        """Writes pairs one after the other.

        Args:
            strength: not below 0. Of `hebb` a factor; of `delta` how far the answer moves to the value, 1 all
                the way, in [0, 1]; of `pseudo_inverse` the pair's weight in the least squares.
        """
        self.check_rows(state, keys.shape[0])
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        given = keys.new_ones(keys.shape[:2]) if strength is None else strength
        keys, values = (torch.where(real.unsqueeze(2), x, 0) for x in (keys, values))
        return self._run(state, keys, keys, values, torch.where(real, given, 0), torch.zeros_like(real))[1]

    def read(self, state: LinearAssociatorState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """Answers W q.

        The slots of a matrix are the coordinates of its keys: coordinate i of the query is the weight with
        which column i counted. It can be negative.
        """
        self.check_rows(state, queries.shape[0])
        with torch.autocast(queries.device.type, enabled=False):
            weights = queries.to(state.weights.dtype)
            values = weights @ state.weights.mT
        slots = torch.arange(weights.shape[2], device=weights.device).expand(weights.shape)
        return Reading(values, weights, slots)

    def _run(
        self,
        state: LinearAssociatorState,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        strengths: Tensor,
        reset: Tensor,
    ) -> tuple[Tensor, LinearAssociatorState]:
        """Reads, then writes, step after step, in the state's precision."""
        dtype = state.weights.dtype
        with torch.autocast(keys.device.type, enabled=False):  # half precision would be added up
            queries, keys, values, strengths = (x.to(dtype) for x in (queries, keys, values, strengths))
            scale = keys.square().sum(2, keepdim=True).clamp_min(1e-6).rsqrt()
            parts = queries, keys * scale, values * scale, strengths
            if self.rule.together is None or self.naive:
                return self._loop(state, *parts, reset)
            read, weights = self.rule.together(*parts, state.weights, reset)
            return read, LinearAssociatorState(weights, state.seen)

    def _loop(
        self,
        state: LinearAssociatorState,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        strengths: Tensor,
        reset: Tensor,
    ) -> tuple[Tensor, LinearAssociatorState]:
        nothing, read = self.initial_state(1), []
        steps = zip(*(x.unbind(1) for x in (queries, keys, values, strengths, reset)), strict=True)
        for query, key, value, strength, starts in steps:
            state = reset_rows(state, starts, nothing)
            read.append(torch.einsum("bwk,bk->bw", state.weights, query))
            state = self.rule.step(state, key, value, strength)
        return torch.stack(read, dim=1) if read else torch.zeros_like(values), state


def _hebb_step(
    state: LinearAssociatorState, key: Tensor, value: Tensor, strength: Tensor
) -> LinearAssociatorState:
    change = (strength.unsqueeze(1) * value).unsqueeze(2) * key.unsqueeze(1)
    return state._replace(weights=state.weights + change)


def _delta_step(
    state: LinearAssociatorState, key: Tensor, value: Tensor, strength: Tensor
) -> LinearAssociatorState:
    return _hebb_step(state, key, value - torch.einsum("bwk,bk->bw", state.weights, key), strength)


def _delta_together(
    queries: Tensor, keys: Tensor, values: Tensor, strengths: Tensor, weights: Tensor, reset: Tensor
) -> tuple[Tensor, Tensor]:
    written, erased = strengths.unsqueeze(2) * values, strengths.unsqueeze(2) * keys
    queries, keys, written, erased = (x.unsqueeze(2) for x in (queries, keys, written, erased))  # one head
    read, weights = delta_rule_chunked(
        queries, keys, written, erased, weights.unsqueeze(1), reset=reset, read_first=True
    )
    return read.squeeze(2), weights.squeeze(1)


def _pseudo_inverse_step(
    state: LinearAssociatorState, key: Tensor, value: Tensor, strength: Tensor
) -> LinearAssociatorState:
    written = strength > 0
    root = torch.where(written, strength, 1).sqrt().unsqueeze(1)  # of both sides: the pair's squared error
    assert isinstance(state.seen, KeysSeen)
    complement, inverse = state.seen
    weights, *seen = pseudo_inverse_step(state.weights, complement, inverse, root * key, root * value)
    return where_rows(written, LinearAssociatorState(weights, KeysSeen(*seen)), state)
