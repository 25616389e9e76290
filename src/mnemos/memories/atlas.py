"""Atlas: a network that learns the last few steps at once, by orthogonal updates."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.atlas_steps import (
    AtlasState,
    Ways,
    by_momentum,
    by_orthogonal_momentum,
    newest,
    present,
    relevances,
    unmade,
    unmoved,
)
from mnemos.memories.base import Projection, Reading
from mnemos.memories.inner_network import InnerNetwork
from mnemos.memories.memoriser_steps import Weights, plain, surprises, weighed
from mnemos.memories.online_learner import OnlineLearner, Told
from mnemos.memories.polynomial_features import PolynomialFeatures
from mnemos.ops.delta_rule import unit
from mnemos.ops.newton_schulz import orthogonalised
from mnemos.ops.test_time import squared_error


@final
class Atlas(OnlineLearner):
    """The long-term memory of ATLAS.

    Behrouz et al. 2025, "ATLAS: Learning to Optimally Memorize the Context at Test Time". An MLP for each
    head, as in `Titans`, with three things changed. The loss of a step is that of the last c steps together
    (the Omega rule, eq. 9), each as relevant as γ says; keys and queries are given polynomial features φ
    (section 3.1); and the momentum is brought near an orthogonal matrix before it is added (Muon, eqs. 32
    and 33), so that every direction is learned as far as any other:

        S_t = θ_t S_{t-1} - Σ_{i=t-c+1}^{t} γ_t,i ∇|M_{t'}(φ(k_i)) - v_i|²
        M_t = α_t M_{t-1} + η_t NewtonSchulz(S_t)

    Without Newton-Schulz (`newton_schulz_steps` 0, the paper's OmegaNet with momentum) η_t weighs the
    gradient, as in `Titans`, which it is if c and the degree are 1. As in section 3.3 all gradients are taken
    at the weights with which the chunk began, those of steps before the chunk too.

    The paper leaves open what γ, in 0 to 1, is made of: here of the input at t, for each place in the window.
    It prints both S and M with a minus sign, which would climb; here the loss descends. Its network adds
    its input to its answer, which features have no width for, and is normed: neither is done, as in
    `Titans`, and gradients longer than `largest_surprise` are scaled down as there.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent networks.
        key_size: width of a head's keys; their features are C(key_size + degree, degree).
        value_size: width of a head's values.
        depth: layers of the network; 1 is a matrix.
        expansion: hidden width over key_size.
        chunk_size: steps whose gradients are taken at the same weights. Part of the definition.
        window: c, steps in the loss of each.
        degree: of the features.
        newton_schulz_steps: how near an orthogonal matrix the momentum is brought; 0 leaves it as it is.
        largest_surprise: length of the longest gradient of one step, all layers of a head together.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int = 64,
        value_size: int = 64,
        depth: int = 2,
        expansion: int = 4,
        chunk_size: int = 16,
        window: int = 8,
        degree: int = 2,
        newton_schulz_steps: int = 5,
        largest_surprise: float = 100.0,
    ) -> None:
        super().__init__(
            input_size,
            output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            depth=depth,
            expansion=expansion,
            chunk_size=chunk_size,
            window=window,
            degree=degree,
        )
        if newton_schulz_steps < 0:
            raise ValueError(f"newton_schulz_steps must be at least 0, not {newton_schulz_steps}")
        self.depth, self.expansion, self.chunk_size = depth, expansion, chunk_size
        self.window, self.degree, self.newton_schulz_steps = window, degree, newton_schulz_steps
        self.largest_surprise = largest_surprise
        self.features = PolynomialFeatures(key_size, degree)
        hidden = [expansion * key_size] * (depth - 1)
        self.network = InnerNetwork(heads, [self.features.width, *hidden, value_size])
        self.add_maps()
        # η, 1 - α, θ and γ before the sigmoid. At first a step is small, and little is forgotten.
        starts = {"rate": (1, -3.0), "decay": (1, -5.0), "momentum": (1, 0.0), "relevance": (window, 0.0)}
        self.gates = nn.ModuleDict(
            {name: nn.Linear(input_size, heads * count) for name, (count, _) in starts.items()}
        )
        for name, (_, start) in starts.items():
            nn.init.constant_(self.gates[name].get_parameter("bias"), start)

    def initial_state(self, batch_size: int) -> AtlasState:
        changes = tuple(self.zeros(batch_size, *weight.shape[1:]) for weight in self.network.weights)
        left = self.zeros(batch_size) + 1
        keys = self.zeros(batch_size, self.window - 1, self.key_size)
        values = self.zeros(batch_size, self.window - 1, self.value_size)
        none = self._origin.new_zeros(batch_size, dtype=torch.int64)
        return AtlasState(changes, left, changes, left, changes, keys, values, none, none)

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        """The slow network: queries, keys, values, and the gates in (0, 1) of each head."""
        linears = (self.query, self.key, self.value)
        queries, keys, values = (functional.silu(linear(inputs)) for linear in linears)
        gates = {name: gate(inputs).sigmoid() for name, gate in self.gates.items()}
        gates["relevance"] = gates["relevance"].unflatten(-1, (self.heads, self.window))
        return Projection(queries, keys, values, gates)

    def write(
        self,
        state: AtlasState,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch time *heads"] | None = None,
        decay: Float[Tensor, "batch time *heads"] | None = None,
        momentum: Float[Tensor, "batch time *heads"] | None = None,
        relevance: Float[Tensor, "batch time heads window"] | None = None,
    ) -> AtlasState:
        """Learns pairs one after the other; a key is the keys of all heads side by side, and so is a value.

        Args:
            strength: times the rate. With strength 0 a pair is not written: nothing decays, and no step is
                counted.
            rate: η, how far the weights go, one for all heads or one for each, as the next two. None is 1/2,
                and without Newton-Schulz 1 / (2 c |φ(k)|²): for a matrix, the c steps in whose windows a pair
                is then come to its value and not beyond.
            decay: 1 - α in 0 to 1, how much of the weights goes; None is 0.
            momentum: θ in 0 to 1, how much of the last momentum stays; None is 0.
            relevance: γ in 0 to 1 of the step itself, of the one before it, and so on; None is 1 for all.
        """
        if rate is None and not self.newton_schulz_steps:
            known = keys if mask is None else torch.where(mask.unsqueeze(-1), keys, 0)
            length = self.features(self.address(self.split(known).to(self.dtype))).square().sum(-1)
            rate = 0.5 / (self.window * length.clamp_min(1e-6))  # without a constant, zeros have no length
        rate, mask = weighed(keys, strength, mask, rate)
        real = keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask
        keys, values = (torch.where(real.unsqueeze(-1), x, 0) for x in (keys, values))
        gates = {"rate": rate, "decay": decay, "momentum": momentum, "relevance": relevance}
        return self.learn(state, None, keys, values, gates, real, None)[1]

    def read(self, state: AtlasState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """What the network answers with the weights as they stand.

        The slots are what goes into the last layer, numbered through all heads.
        """
        with torch.autocast(queries.device.type, enabled=False):
            asked = self.features(self.address(self.split(queries).to(self.dtype))).transpose(1, 2)
            layers = unmoved(state.changes, state.left, self.network.initial)
            values, inputs = self.network.answer(layers, asked)
        into = inputs.transpose(1, 2).flatten(2)
        slots = torch.arange(into.shape[2], device=into.device).expand(into.shape)
        return Reading(values.transpose(1, 2).flatten(2), into, slots)

    def address(self, keys: Float[Tensor, "*shape keys"]) -> Float[Tensor, "*shape keys"]:
        return unit(keys)

    def ways(
        self, gates: dict[str, Tensor | None], like: Float[Tensor, "batch time heads width"]
    ) -> Float[Tensor, "batch time heads ways"]:
        relevance = gates.get("relevance")
        if relevance is None:
            relevance = like.new_ones(*like.shape[:3], self.window)
        rate, decay, momentum = (self.gate(gates.get(name), like) for name in ("rate", "decay", "momentum"))
        return torch.cat([torch.stack([rate, 1 - decay, momentum], dim=-1), relevance.to(like)], dim=-1)

    def chunk(
        self, state: AtlasState, told: Told, real: Bool[Tensor, "batch steps"]
    ) -> tuple[Float[Tensor, "batch heads steps width"], AtlasState]:
        queries, keys, values, way = *told[:3], _ways(told.ways)
        surprises = self._surprises(
            state, torch.cat([state.keys, keys], dim=2), torch.cat([state.values, values], dim=2)
        )
        shares = relevances(way.relevance, state.held, real)
        parts = state, self.network.initial, surprises, way, shares, real
        if self.newton_schulz_steps:
            layers, after = by_orthogonal_momentum(*parts, self.newton_schulz_steps)
        else:
            layers, after = by_momentum(*parts)
        read, _ = self.network.answer(layers, self.features(queries))
        count = real.sum(1)
        return read, after._replace(
            keys=newest(state.keys, keys, count),
            values=newest(state.values, values, count),
            held=(state.held + count).clamp_max(self.window - 1),
            position=state.position + count,
        )

    def step(
        self, state: AtlasState, told: Told
    ) -> tuple[Float[Tensor, "batch heads one width"], AtlasState]:
        query, key, value, way = *told[:3], _ways(told.ways)
        initial = self.network.initial
        now = present(state.changes, state.left, initial)
        read, _ = self.network.answer(plain(Weights(now, (), state.left)), self.features(query))
        keys, values = torch.cat([state.keys, key], dim=2), torch.cat([state.values, value], dim=2)
        surprise = [torch.zeros_like(w) for w in now]
        for ago in range(self.window):
            place = self.window - 1 - ago
            inputs, slopes = self._surprises(state, keys.narrow(2, place, 1), values.narrow(2, place, 1))
            relevance = way.relevance.narrow(3, ago, 1) * (ago <= state.held).view(-1, 1, 1, 1)
            for layer, (a, d) in enumerate(zip(inputs, slopes, strict=True)):
                surprise[layer] = surprise[layer] + relevance * (a.mT @ d)
        rate, kept, momentum = (x.unsqueeze(-1) for x in way[:3])
        orthogonal = self.newton_schulz_steps
        momenta = tuple(
            momentum * s + (u if orthogonal else rate * u)
            for s, u in zip(state.momenta, surprise, strict=True)
        )
        learned = [rate * orthogonalised(s, orthogonal) if orthogonal else s for s in momenta]
        left = state.left * way.kept.squeeze(2)
        after = state._replace(
            changes=unmade([kept * w + new for w, new in zip(now, learned, strict=True)], left, initial),
            left=left,
            momenta=momenta,
            keys=keys.narrow(2, 1, self.window - 1),
            values=values.narrow(2, 1, self.window - 1),
            held=(state.held + 1).clamp_max(self.window - 1),
            position=state.position + 1,
        )
        return read, after

    def complete(self, state: AtlasState) -> AtlasState:
        return state._replace(
            began=state.changes, began_left=state.left, position=torch.zeros_like(state.position)
        )

    def _surprises(
        self,
        state: AtlasState,
        keys: Float[Tensor, "batch heads steps keys"],
        values: Float[Tensor, "batch heads steps width"],
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Minus the gradient of every step's loss at the weights with which the chunk began: by layer, what
        went into it and what came back to its output."""
        began = unmoved(state.began, state.began_left, self.network.initial)
        full = torch.ones_like(values[..., 0])
        return surprises(
            self.network,
            squared_error,
            self.largest_surprise,
            began,
            self.features(keys),
            values,
            full,
        )


def _ways(ways: Float[Tensor, "batch heads steps ways"]) -> Ways:
    (rate, kept, momentum), relevance = ways[..., :3].unbind(-1), ways[..., 3:]
    return Ways(rate, kept, momentum, relevance)
