"""How Atlas' weights come from what it holds of the last steps, a chunk of them at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.ops.newton_schulz import orthogonalised
from mnemos.ops.test_time import step_mixing


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


class Moved(NamedTuple):
    """One layer in the course of a chunk."""

    before: Float[Tensor, "batch heads steps _into _out"]  # the weights before every step
    after: Float[Tensor, "batch heads _into _out"]  # those after the last
    momentum: Float[Tensor, "batch heads _into _out"]  # after the last


def made(
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
    """What weights have over what is left of the initial ones: the reverse of `made`."""
    share = left[:, :, None, None]
    return tuple(made - share * w for made, w in zip(weights, initial, strict=True))


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


def moved(
    weights: Float[Tensor, "batch heads into out"],
    momentum: Float[Tensor, "batch heads into out"],
    inputs: Float[Tensor, "batch heads seen into"],
    slopes: Float[Tensor, "batch heads seen out"],
    ways: Ways,
    shares: Float[Tensor, "batch heads steps seen"],
    real: Bool[Tensor, "batch steps"],
    newton_schulz_steps: int,
) -> Moved:
    """A layer's weights step by step, from gradients that are outer products of `inputs` and `slopes`.

    Args:
        shares: how much of every gradient a step has, from `relevances`.
    """
    there = real.unsqueeze(1).expand_as(ways.kept)
    momenta = step_mixing(ways.momentum, None, there)
    within = momenta.steps[:, :, 1:] @ shares
    # S_t = Π θ S_0 + Σ_i (share of i in S_t) a_i ⊗ δ_i
    surprise = inputs.mT.unsqueeze(2) @ (within.unsqueeze(-1) * slopes.unsqueeze(2))
    momentums = momenta.weights[:, :, 1:].unsqueeze(-1) * momentum.unsqueeze(2) + surprise
    learned = orthogonalised(momentums, newton_schulz_steps) if newton_schulz_steps else momentums
    mixing = step_mixing(ways.kept, None, there)
    given = mixing.steps * ways.rate.unsqueeze(2) if newton_schulz_steps else mixing.steps
    told = (given @ learned.flatten(3)).unflatten(3, weights.shape[2:])
    after = mixing.weights.unsqueeze(-1) * weights.unsqueeze(2) + told
    *before, last = after.unbind(2)
    return Moved(torch.stack(before, dim=2), last, momentums.unbind(2)[-1].clone())


def newest(
    held: Float[Tensor, "batch heads slots width"],
    steps: Float[Tensor, "batch heads steps width"],
    count: Int[Tensor, "batch"],
) -> Float[Tensor, "batch heads slots width"]:
    """What is held after the first `count` of the new steps of each row."""
    slots = torch.arange(held.shape[2], device=count.device)
    place = (slots + count.unsqueeze(1))[:, None, :, None]
    return torch.cat([held, steps], dim=2).gather(2, place.expand_as(held))
