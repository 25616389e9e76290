"""How Atlas' weights come from what it holds of the last steps, a chunk of them at once."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.ops.orthogonal_momentum import Momenta, all_learned, last, learned, orthogonal
from mnemos.ops.test_time import MixedLayers, made, moments, step_mixing

Surprises = tuple[Sequence[Tensor], Sequence[Tensor]]  # by layer: what went in, and what came back


class AtlasState(NamedTuple):
    """The weights now and those with which the present chunk began, and the last steps; never below float32.

    Weights are kept as what they have over what is left of the initial ones, which go on learning.
    """

    began: tuple[Float[Tensor, "batch heads _into _out"], ...]  # W_t', less `began_left` initial weights
    began_left: Float[Tensor, "batch heads"]
    changes: tuple[Float[Tensor, "batch heads _into _out"], ...]  # W_t, less `left` times the initial weights
    left: Float[Tensor, "batch heads"]  # of the initial weights: the product of all 1 - α
    momenta: tuple[Float[Tensor, "batch heads _into _out"], ...]  # S_t
    keys: Float[Tensor, "batch heads slots keys"]  # of the last window - 1 steps, the newest last
    values: Float[Tensor, "batch heads slots width"]
    held: Int[Tensor, "batch"]  # how many of them there are
    position: Int[Tensor, "batch"]  # how many steps the present chunk has


class Ways(NamedTuple):
    """How steps are learned."""

    rate: Float[Tensor, "batch heads steps"]  # η_t
    kept: Float[Tensor, "batch heads steps"]  # α_t
    momentum: Float[Tensor, "batch heads steps"]  # θ_t
    relevance: Float[Tensor, "batch heads steps window"]  # γ_t of the step itself and of those before it


def present(
    changes: Sequence[Float[Tensor, "batch heads _into _out"]],
    left: Float[Tensor, "batch heads"],
    initial: Sequence[Float[Tensor, "heads _into _out"]],
) -> tuple[Float[Tensor, "batch heads _into _out"], ...]:
    """The weights themselves."""
    share = left[:, :, None, None]
    return tuple(torch.addcmul(change, share, w) for change, w in zip(changes, initial, strict=True))


def unmade(
    weights: Sequence[Float[Tensor, "batch heads _into _out"]],
    left: Float[Tensor, "batch heads"],
    initial: Sequence[Float[Tensor, "heads _into _out"]],
) -> tuple[Float[Tensor, "batch heads _into _out"], ...]:
    """What weights have over what is left of the initial ones: the reverse of `present`."""
    share = left[:, :, None, None]
    return tuple(weight - share * w for weight, w in zip(weights, initial, strict=True))


def relevances(
    relevance: Float[Tensor, "batch heads steps window"],
    held: Int[Tensor, "batch"],
    real: Bool[Tensor, "batch steps"],
) -> Float[Tensor, "batch heads steps seen"]:
    """How much every step counts in the loss of every new one: those held, then the new ones.

    Args:
        relevance: of the step itself, of the one before it, and so on.
        held: how many of the window - 1 steps before there are.
        real: which new steps there are.
    """
    steps, window = relevance.shape[2:]
    number = torch.arange(steps, device=held.device).unsqueeze(1)
    seen = torch.arange(window - 1 + steps, device=held.device)
    ago = number + window - 1 - seen  # (steps, seen)
    there = torch.cat([seen[: window - 1] >= window - 1 - held.unsqueeze(1), real], dim=1)
    inside = (ago >= 0) & (ago < window) & there.unsqueeze(1)  # (batch, steps, seen)
    chosen = relevance.gather(3, ago.clamp(0, window - 1).expand(*relevance.shape[:2], -1, -1))
    return torch.where(inside.unsqueeze(1), chosen, 0)


def unmoved(
    changes: Sequence[Float[Tensor, "batch heads _into _out"]],
    left: Float[Tensor, "batch heads"],
    initial: Sequence[Float[Tensor, "heads _into _out"]],
    shares: Float[Tensor, "batch heads after one"] | None = None,
) -> MixedLayers:
    """Layers of weights that are not made.

    Args:
        shares: in a line each, how much of the weights there is; None is all.
    """
    whole = tuple(w.expand(len(left), *w.shape) for w in initial)
    of_initial = left[:, :, None, None] if shares is None else shares * left[:, :, None, None]
    return MixedLayers([(shares, changes), (of_initial, whole)], None, (), ())


def by_momentum(
    state: AtlasState,
    initial: Sequence[Float[Tensor, "heads _into _out"]],
    surprises: Surprises,
    ways: Ways,
    shares: Float[Tensor, "batch heads steps seen"],
    real: Bool[Tensor, "batch steps"],
) -> tuple[MixedLayers, AtlasState]:
    """Layers as they are before every step, and the state with what the weights are after the last.

    Args:
        surprises: what went into each layer at every step seen, and minus what came back to its output.
        shares: how much of every gradient a step has, from `relevances`.
    """
    mixing = step_mixing(ways.kept, ways.momentum, real.unsqueeze(1).expand_as(ways.kept))
    shares = ways.rate.unsqueeze(-1) * shares
    mixing = mixing._replace(steps=mixing.steps @ shares, momentum_steps=mixing.momentum_steps @ shares)
    count, seen = shares.shape[2:]
    now, end = moments(mixing, 0, count, seen), moments(mixing, count, count + 1, seen)
    layers = unmoved(state.changes, state.left, initial, now.weights)
    parts = [*layers.parts, (now.momenta, state.momenta)]
    moved = [
        made((change, momentum), end, slopes, inputs)
        for change, momentum, inputs, slopes in zip(state.changes, state.momenta, *surprises, strict=True)
    ]
    changes, momenta = zip(*moved, strict=True)
    left = state.left * end.weights[..., 0, 0]
    return (
        MixedLayers(parts, now.steps, *surprises),
        state._replace(changes=changes, momenta=momenta, left=left),
    )


def by_orthogonal_momentum(
    state: AtlasState,
    initial: Sequence[Float[Tensor, "heads _into _out"]],
    surprises: Surprises,
    ways: Ways,
    shares: Float[Tensor, "batch heads steps seen"],
    real: Bool[Tensor, "batch steps"],
    newton_schulz_steps: int,
) -> tuple[MixedLayers, AtlasState]:
    """The same where Newton-Schulz stands between the momentum and the weights."""
    there = real.unsqueeze(1).expand_as(ways.kept)
    mixing, momentum = step_mixing(ways.kept, None, there), step_mixing(ways.momentum, None, there)
    kept, shares = momentum.weights[:, :, 1:], momentum.steps[:, :, 1:] @ shares
    momenta = [
        Momenta(kept, before, shares, inputs, slopes)
        for before, inputs, slopes in zip(state.momenta, *surprises, strict=True)
    ]
    layers = tuple(orthogonal(layer, newton_schulz_steps) for layer in momenta)
    given = mixing.steps * ways.rate.unsqueeze(2)
    count = given.shape[3]
    end = mixing.weights[:, :, count:]
    held = unmoved(state.changes, state.left, initial, mixing.weights[:, :, :count])
    changes = tuple(
        end * change + all_learned(layer, given[:, :, count:])
        for change, layer in zip(state.changes, layers, strict=True)
    )
    return (
        held._replace(others=[partial(learned, layer, given[:, :, :count]) for layer in layers]),
        state._replace(changes=changes, momenta=tuple(map(last, momenta)), left=state.left * end[..., 0, 0]),
    )


def newest(
    held: Float[Tensor, "batch heads slots width"],
    steps: Float[Tensor, "batch heads steps width"],
    count: Int[Tensor, "batch"],
) -> Float[Tensor, "batch heads slots width"]:
    """What is held after the first `count` of the new steps of each row."""
    slots = torch.arange(held.shape[2], device=count.device)
    place = (slots + count.unsqueeze(1))[:, None, :, None]
    return torch.cat([held, steps], dim=2).gather(2, place.expand_as(held))
