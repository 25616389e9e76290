"""How a memoriser's weights come from its state and what it is told, step by step or many at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.memories.inner_network import Error, InnerNetwork
from mnemos.ops.chunk_places import ChunkPlaces
from mnemos.ops.test_time import MixedLayers, Mixing, made
from mnemos.tree import map_tensors, where_rows


class Surprises(NamedTuple):
    """What each step adds to the momentum: the outer product of slopes and inputs, layer by layer."""

    inputs: tuple[Float[Tensor, "batch heads steps _into"], ...]  # a_i, what goes into each layer
    slopes: tuple[Float[Tensor, "batch heads steps _out"], ...]  # -θ_i δ_i
    kept: Float[Tensor, "batch heads steps"]  # 1 - α_i
    momentum: Float[Tensor, "batch heads steps"]  # η_i


class MemoriserState(NamedTuple):
    """The weights with which the present chunk began, and the steps of it so far; never below float32.

    The weights are kept as what they have over what is left of the initial ones, which go on learning.
    """

    changes: tuple[Float[Tensor, "batch heads _into _out"], ...]  # W, less `left` times the initial weights
    momenta: tuple[Float[Tensor, "batch heads _into _out"], ...]  # S; none where there is no momentum
    left: Float[Tensor, "batch heads"]  # of the initial weights: the product of all 1 - α
    surprises: Surprises  # of the steps so far; room for all of a chunk but its last, which ends it
    position: Int[Tensor, "batch"]  # how many there are


class Weights(NamedTuple):
    """Where the weights stand."""

    made: tuple[Float[Tensor, "batch heads _into _out"], ...]  # W
    momenta: tuple[Float[Tensor, "batch heads _into _out"], ...]  # S
    left: Float[Tensor, "batch heads"]


class Steps(NamedTuple):
    """What is told: keys and values, and how."""

    keys: Float[Tensor, "batch time heads keys"]
    values: Float[Tensor, "batch time heads width"]
    ways: Float[Tensor, "batch time heads three"]  # θ, 1 - α and η


def begun(state: MemoriserState, initial: Sequence[Float[Tensor, "heads _into _out"]]) -> Weights:
    """The weights at the chunk's start."""
    left = state.left[:, :, None, None]
    made = tuple(torch.addcmul(change, left, w) for change, w in zip(state.changes, initial, strict=True))
    return Weights(made, state.momenta, state.left)


def with_weights(
    state: MemoriserState, weights: Weights, initial: Sequence[Float[Tensor, "heads _into _out"]]
) -> MemoriserState:
    """The state with other weights at the chunk's start."""
    left = weights.left[:, :, None, None]
    changes = tuple(made - left * w for made, w in zip(weights.made, initial, strict=True))
    return state._replace(changes=changes, momenta=weights.momenta, left=weights.left)


def plain(weights: Weights) -> MixedLayers:
    """Layers with these weights."""
    return MixedLayers(weights.made, (), None, (), ())


def mixed(weights: Weights, mixing: Mixing, steps: Surprises) -> MixedLayers:
    """Layers with what the weights become by these steps, for each line of `mixing` its own."""
    return MixedLayers(weights.made, weights.momenta, mixing, steps.inputs, steps.slopes)


def surprises(
    network: InnerNetwork,
    error: Error,
    largest: float,
    layers: MixedLayers,
    keys: Float[Tensor, "batch heads steps keys"],
    values: Float[Tensor, "batch heads steps width"],
    rate: Float[Tensor, "batch heads steps"],
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and slopes of `Surprises` for steps with these keys, values and rates.

    Args:
        largest: the length to which a longer gradient is scaled down, all layers of a head together.
    """
    inputs, slopes = network.surprise(layers, keys, values, error)
    lengths = [a.square().sum(-1) * d.square().sum(-1) for a, d in zip(inputs, slopes, strict=True)]
    over = torch.stack(lengths).sum(0) / largest**2
    scale = (-rate * over.clamp_min(1).rsqrt()).unsqueeze(-1)
    return tuple(inputs), tuple(scale * slope for slope in slopes)


def stepped(weights: Weights, step: Surprises) -> Weights:
    """The weights after one step, by the definition."""
    kept, momentum = step.kept.unsqueeze(-1), step.momentum.unsqueeze(-1)
    news = [a.mT @ d for a, d in zip(step.inputs, step.slopes, strict=True)]
    if weights.momenta:
        news = [momentum * s + u for s, u in zip(weights.momenta, news, strict=True)]
    after = tuple(kept * w + new for w, new in zip(weights.made, news, strict=True))
    return Weights(after, tuple(news) if weights.momenta else (), weights.left * step.kept.squeeze(-1))


def replayed(weights: Weights, state: MemoriserState) -> Weights:
    """The weights after the steps of the chunk so far, by the definition."""
    for number in range(state.surprises.kept.shape[2]):
        step = map_tensors(lambda x, n=number: x.narrow(2, n, 1), state.surprises)
        weights = where_rows(number < state.position, stepped(weights, step), weights)
    return weights


def told(weights: Weights, mixing: Mixing, steps: Surprises) -> Weights:
    """The weights after many steps at once; `mixing` has one line."""
    parts = zip(weights.made, *([weights.momenta] if weights.momenta else []), strict=True)
    layers = zip(parts, steps.slopes, steps.inputs, strict=True)
    after, *momenta = zip(*(made(part, mixing, *pair) for part, *pair in layers), strict=True)
    return Weights(after, momenta[0] if momenta else (), weights.left * mixing.weights[..., 0, 0])


def joined(parts: Sequence[Surprises]) -> Surprises:
    """The steps of all parts, one after the other."""
    return map_tensors(lambda *x: torch.cat(x, dim=2), *parts) if len(parts) > 1 else parts[0]


def carry(state: MemoriserState, places: ChunkPlaces, chunks: list[Surprises]) -> MemoriserState:
    """The state with the steps of each row's last chunk, as far as they did not complete it.

    Args:
        chunks: what was told in each chunk of the piece.
    """
    rows = torch.arange(len(places.last), device=places.last.device)
    goes_on = (places.last == 0) & ~places.ended
    offset = torch.where(goes_on, state.position, 0).unsqueeze(1)
    slots = torch.arange(state.surprises.kept.shape[2], device=rows.device)
    columns = torch.arange(places.real.shape[2], device=rows.device)
    comes = (slots - offset).unsqueeze(2) == columns
    comes = comes & places.real[places.last, rows].unsqueeze(1)  # (batch, slots, columns)
    comes = comes & (slots < places.position.unsqueeze(1)).unsqueeze(2)
    stays = goes_on & ~places.full[places.last, rows]
    last = map_tensors(lambda *parts: torch.stack(parts)[places.last, rows], *chunks)
    held = map_tensors(lambda old, new: _put(comes, new, old, stays), state.surprises, last)
    return state._replace(surprises=held, position=places.position)


def _put(comes: Tensor, new: Tensor, held: Tensor, stays: Tensor) -> Tensor:
    """What comes from a column into a slot, besides what was held, if that stays."""
    # By products: torch.where is slow where its condition is broadcast.
    stays = (stays.unsqueeze(1) & ~comes.any(2)).to(held)[:, None, :, None]
    before, after = (x.unsqueeze(-1) if x.dim() == 3 else x for x in (held, new))
    return (stays * before + comes.unsqueeze(1).to(held) @ after).view_as(held)
