"""The continuum memory system of HOPE: a chain of networks, each of which learns at a pace of its own."""

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mnemos.memories.base import Projection, Reading
from mnemos.memories.inner_network import InnerNetwork
from mnemos.memories.memoriser_steps import Weights, plain
from mnemos.memories.online_learner import OnlineLearner, Told
from mnemos.ops.delta_rule import unit
from mnemos.ops.test_time import back_through, squared_error

Layers = tuple[Float[Tensor, "batch heads _into _out"], ...]


class ContinuumState(NamedTuple):
    """What the blocks have learned, over the initial weights, and are about to; never below float32."""

    changes: tuple[Layers, ...]  # θ less the initial weights, by block and layer
    pending: tuple[Layers, ...]  # what the present period of each block adds to them at its end
    position: Int[Tensor, "batch"]  # steps so far, up to when all periods end together


@final
class ContinuumMemory(OnlineLearner):
    """The continuum memory system (CMS) of Nested Learning, in sequence.

    Behrouz, Razaviyayn, Zhong & Mirrokni 2025, "Nested Learning: The Illusion of Deep Learning Architecture",
    section 7.1. A chain of blocks, y = MLP_k(... MLP_1(x)) (eq. 70), of which block l is changed every C_l
    steps, by the sum of what these steps ask at the weights with which the period began (eq. 71):

        θ_l ← θ_l - Σ_{t of the last C_l steps} η_t,l ∇_{θ_l} L_t        if C_l divides the step's number

    and otherwise stays as it is. A period says when a block is changed; what it learns of what is told, and
    keeps, its rates say (study `continuum`). All initial weights are learned outside (eq. 73).

    The paper leaves open the loss L ("the objective of choice for the task at hand") and the optimizer.
    Chosen here, as in TTT and `Titans`: each head's chain answers a key, and L_t = |chain(k_t) - v_t|², its
    gradient taken through the blocks that come after as they stand; plain descent, with rates η in (0, 1)
    made of the input for each head and block. As in the equations there is no momentum, and nothing decays.
    The paper leaves the norms out of eq. 70; here a block is x + W_2 gelu(W_1 x / |x|) with W_2 zero at
    first, so that a chain begins as the identity. Not in the paper: gradients longer than `largest_surprise`
    are scaled down, as in `Titans`.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent chains.
        key_size: width of a head's keys and values, and of what goes from block to block.
        periods: C_l of each block, in the order of the chain; (1, 4, 16) is three blocks.
        expansion: hidden width of a block over key_size.
        largest_surprise: length of the longest gradient of one step for one block, both layers together.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int = 64,
        periods: Sequence[int] = (4, 16, 64),
        expansion: int = 4,
        largest_surprise: float = 100.0,
    ) -> None:
        super().__init__(
            input_size,
            output_size,
            heads=heads,
            key_size=key_size,
            value_size=key_size,
            expansion=expansion,
            **{f"periods[{number}]": period for number, period in enumerate(periods)},
        )
        if not periods:
            raise ValueError("periods must name at least one block")
        self.periods = tuple(periods)
        self.expansion, self.largest_surprise = expansion, largest_surprise
        self.chunk_size = math.gcd(*periods)  # steps within which no block changes
        sizes = [key_size, expansion * key_size, key_size]
        self.blocks = nn.ModuleList(InnerNetwork(heads, sizes) for _ in periods)
        self.add_maps()
        self.rate = nn.Linear(input_size, heads * len(periods))  # η before the sigmoid
        # At first a period is a small step, however many steps add up in it.
        starts = torch.tensor([-3.0 - math.log(period) for period in periods])
        with torch.no_grad():
            self.rate.bias.copy_(starts.repeat(heads))

    def initial_state(self, batch_size: int) -> ContinuumState:
        nothing = tuple(
            tuple(self.zeros(batch_size, *weight.shape[1:]) for weight in block.weights)
            for block in self._blocks
        )
        position = self._origin.new_zeros(batch_size, dtype=torch.int64)
        return ContinuumState(nothing, nothing, position)

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        """The slow network: queries, keys and values, and the rates in (0, 1) of each head's blocks."""
        rate = self.rate(inputs).sigmoid().unflatten(-1, (self.heads, len(self.periods)))
        return Projection(self.query(inputs), self.key(inputs), self.value(inputs), {"rate": rate})

    def write(
        self,
        state: ContinuumState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch time heads blocks"] | None = None,
    ) -> ContinuumState:
        """Learns pairs one after the other; a key is the keys of all heads side by side, and so is a value.

        Args:
            strength: times the rate. A pair of strength 0 is not written, and is no step of any period.
            rate: η, how far a block's weights go against the gradient of the pair; None is 1 / (2 C_l).
        """
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        keys, values = (torch.where(real.unsqueeze(-1), x, 0) for x in (keys, values))
        if strength is not None:
            real = real & (strength != 0)
        gates = {"rate": rate, "strength": strength}
        return self.learn(state, None, keys, values, gates, real, None)[1]

    def read(self, state: ContinuumState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """What the chain answers as it stands.

        The slots are what goes into the last layer of the last block, numbered through all heads.
        """
        with torch.autocast(queries.device.type, enabled=False):
            asked = self.address(self.split(queries).to(self.dtype)).transpose(1, 2)
            *before, last = self._chain(self._weights(state), asked)
            _, into = self._blocks[-1].answer(plain(self._weights(state)[-1]), unit(before[-1]))
        weights = into.transpose(1, 2).flatten(2)
        slots = torch.arange(weights.shape[2], device=weights.device).expand(weights.shape)
        return Reading(last.transpose(1, 2).flatten(2), weights, slots)

    def address(self, keys: Float[Tensor, "*shape keys"]) -> Float[Tensor, "*shape keys"]:
        return unit(keys)

    def ways(
        self, gates: dict[str, Tensor | None], like: Float[Tensor, "batch time heads width"]
    ) -> Float[Tensor, "batch time heads blocks"]:
        rate, strength = gates["rate"], gates.get("strength")
        if rate is None:
            rate = 0.5 / like.new_tensor(self.periods).expand(*like.shape[:3], -1)
        return rate.to(like) if strength is None else rate.to(like) * strength.to(like)[..., None, None]

    def chunk(
        self, state: ContinuumState, told: Told, real: Bool[Tensor, "batch steps"]
    ) -> tuple[Float[Tensor, "batch heads steps width"], ContinuumState]:
        blocks = self._weights(state)
        passed = self._chain(blocks, torch.cat([told.queries, told.keys], dim=2))
        *inputs, (read, answers) = (x.chunk(2, dim=2) for x in passed)
        slope = squared_error(answers, told.values)
        pending: list[Layers] = []
        rates = torch.where(real[:, None, :, None], told.ways, 0).split(1, dim=-1)
        parts = zip(self._blocks, blocks, inputs, state.pending, rates, strict=True)
        for network, weights, (_, x), waiting, rate in reversed(list(parts)):
            into, slopes = network.surprise(plain(weights), unit(x), slope, _given)
            share = -rate * _cut(into, slopes, self.largest_surprise)
            asked = zip(waiting, into, slopes, strict=True)
            pending.insert(0, tuple(sofar + a.mT @ (share * d) for sofar, a, d in asked))
            slope = slope + _back_through_unit(x, back_through(plain(weights), 0, slopes[0]))
        return read, state._replace(pending=tuple(pending), position=state.position + real.sum(1))

    def step(
        self, state: ContinuumState, told: Told
    ) -> tuple[Float[Tensor, "batch heads one width"], ContinuumState]:
        return self.chunk(state, told, torch.ones_like(told.queries[:, 0, :, 0], dtype=torch.bool))

    def complete(self, state: ContinuumState) -> ContinuumState:
        changes, pending = [], []
        for period, changed, waiting in zip(self.periods, state.changes, state.pending, strict=True):
            due = (state.position % period == 0).view(-1, 1, 1, 1)
            changes.append(
                tuple(torch.where(due, w + new, w) for w, new in zip(changed, waiting, strict=True))
            )
            pending.append(tuple(torch.where(due, 0, new) for new in waiting))
        position = state.position % math.lcm(*self.periods)
        return state._replace(changes=tuple(changes), pending=tuple(pending), position=position)

    @property
    def _blocks(self) -> list[InnerNetwork]:
        return [block for block in self.blocks if isinstance(block, InnerNetwork)]

    def _weights(self, state: ContinuumState) -> list[Weights]:
        """The weights of each block as they stand."""
        left = self.zeros(len(state.position)) + 1
        parts = zip(self._blocks, state.changes, strict=True)
        return [
            Weights(tuple(w + change for w, change in zip(block.initial, changed, strict=True)), (), left)
            for block, changed in parts
        ]

    def _chain(
        self, blocks: Sequence[Weights], x: Float[Tensor, "batch heads time width"]
    ) -> list[Float[Tensor, "batch heads time width"]]:
        """What goes into each block, and what comes out of the last."""
        passed = [x]
        for network, weights in zip(self._blocks, blocks, strict=True):
            passed.append(passed[-1] + network.answer(plain(weights), unit(passed[-1]))[0])
        return passed


def _given(answers: Tensor, slope: Tensor) -> Tensor:
    """For a block, the slope at its output is what comes back from the blocks after it."""
    return slope


def _back_through_unit(x: Tensor, slope: Tensor) -> Tensor:
    """What of a slope at `unit(x)` comes back to x."""
    squares = x.square().sum(-1, keepdim=True)
    along = torch.where(squares > 1e-6, (slope * x).sum(-1, keepdim=True) / squares.clamp_min(1e-6), 0)
    return (slope - along * x) * squares.clamp_min(1e-6).rsqrt()


def _cut(inputs: Sequence[Tensor], slopes: Sequence[Tensor], largest: float) -> Tensor:
    """What scales a longer gradient of a step, of all layers together, down to `largest`; others are left."""
    lengths = [a.square().sum(-1) * d.square().sum(-1) for a, d in zip(inputs, slopes, strict=True)]
    return (torch.stack(lengths).sum(0) / largest**2).clamp_min(1).rsqrt().unsqueeze(-1)
