"""How a memoriser's weights come from its state and what it is told, step by step or many at once."""

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from mnemos.memories.inner_network import Error, InnerNetwork
from mnemos.ops.chunk_places import ChunkPlaces
from mnemos.ops.looking import may_look
from mnemos.ops.test_time import MixedLayers, Mixing, continued, made, no_mixing, one_more, step_mixing
from mnemos.tree import map_tensors, where_rows

State = TypeVar("State")


class Surprises(NamedTuple):
    """What each step adds to the momentum: the outer product of slopes and inputs, layer by layer."""

    inputs: tuple[Float[Tensor, "batch heads steps _into"], ...]  # a_i, what goes into each layer
    slopes: tuple[Float[Tensor, "batch heads steps _out"], ...]  # -θ_i δ_i


class MemoriserState(NamedTuple):
    """The weights with which the present chunk began, and the steps of it so far; never below float32.

    The weights are kept as what they have over what is left of the initial ones, which go on learning.
    """

    changes: tuple[Float[Tensor, "batch heads _into _out"], ...]  # W, less `left` times the initial weights
    momenta: tuple[Float[Tensor, "batch heads _into _out"], ...]  # S; none where there is no momentum
    left: Float[Tensor, "batch heads"]  # of the initial weights: the product of all 1 - α
    surprises: Surprises  # of the steps so far; zeros in the rest of the chunk's room
    mixing: Mixing  # what the present weights are made of: one line
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
    return MixedLayers([(None, weights.made)], None, (), ())


def mixed(weights: Weights, mixing: Mixing, steps: Surprises) -> MixedLayers:
    """Layers with what the weights become by these steps, for each line of `mixing` its own."""
    momenta = [(mixing.momenta, weights.momenta)] if weights.momenta else []
    return MixedLayers([(mixing.weights, weights.made), *momenta], mixing.steps, *steps)


def at_start(state: MemoriserState, initial: Sequence[Float[Tensor, "heads _into _out"]]) -> MixedLayers:
    """Layers as they were at the chunk's start, of weights that are not made."""
    left = state.left[:, :, None, None]
    return MixedLayers([(None, state.changes), (left, _by_row(state, initial))], None, (), ())


def at_present(
    state: MemoriserState, initial: Sequence[Float[Tensor, "heads _into _out"]], *, and_start: bool = False
) -> MixedLayers:
    """Layers as they are now, of weights that are not made; in a second line, as they were at the start."""
    lines = (0, 0, 0, int(and_start))
    weights, momenta, steps, *_ = state.mixing
    weights, momenta, steps = (
        functional.pad(x, lines, value=v) for x, v in ((weights, 1.0), (momenta, 0.0), (steps, 0.0))
    )
    left = weights * state.left[:, :, None, None]
    parts = [(weights, state.changes), (left, _by_row(state, initial))]
    if state.momenta:
        parts.append((momenta, state.momenta))
    return MixedLayers(parts, steps, *state.surprises)


def _by_row(state: MemoriserState, initial: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(w.expand(len(state.left), *w.shape) for w in initial)


def either(rows: Bool[Tensor, " batch"], if_true: State, if_false: State) -> State:
    """`where_rows`, without a pass over all tensors where rows agree."""
    if may_look(rows) and rows.all():
        return if_true
    return where_rows(rows, if_true, if_false)


def surprises(
    network: InnerNetwork,
    error: Error,
    largest: float,
    layers: MixedLayers,
    keys: Float[Tensor, "batch heads steps keys"],
    values: Float[Tensor, "batch heads steps width"],
    rate: Float[Tensor, "batch heads steps"],
) -> Surprises:
    """The surprises of steps with these keys, values and rates; see `limited`."""
    return limited(*network.surprise(layers, keys, values, error), rate, largest)


@torch.no_grad()
def _any_longer(inputs: Sequence[Tensor], slopes: Sequence[Tensor], largest: float) -> bool:
    lengths = (_squares(a) * _squares(d) for a, d in zip(inputs, slopes, strict=True))
    return bool((functools.reduce(torch.add, lengths) > largest**2).any())


def _squares(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True)


def limited(
    inputs: Sequence[Float[Tensor, "batch heads steps _into"]],
    slopes: Sequence[Float[Tensor, "batch heads steps _out"]],
    rate: Float[Tensor, "batch heads steps"],
    largest: float,
) -> Surprises:
    """The surprises of steps with these gradients and rates.

    Args:
        largest: the length to which a longer gradient is scaled down, all layers of a head together.
    """
    scale = -rate.unsqueeze(-1)
    if not may_look(rate) or _any_longer(inputs, slopes, largest):
        lengths = (_squares(a) * _squares(d) for a, d in zip(inputs, slopes, strict=True))
        over = functools.reduce(torch.add, lengths) / largest**2
        scale = scale * over.clamp_min(1).rsqrt()
    return Surprises(tuple(inputs), tuple(scale * slope for slope in slopes))


def summed(weights: Weights, state: MemoriserState) -> Weights:
    """The weights after the steps of the chunk so far, from those at its start, one by one."""
    mixing, layers = state.mixing, range(len(weights.made))
    inputs, slopes = state.surprises

    def added(number: int, coefficients: Tensor) -> Tensor:
        return inputs[number].mT @ (coefficients.mT * slopes[number])

    after = [mixing.weights * weights.made[n] + added(n, mixing.steps) for n in layers]
    if not weights.momenta:
        return weights._replace(made=tuple(after), left=weights.left * mixing.weights[..., 0, 0])
    after = [w + mixing.momenta * weights.momenta[n] for n, w in enumerate(after)]
    momenta = [mixing.momentum_kept * weights.momenta[n] + added(n, mixing.momentum_steps) for n in layers]
    return Weights(tuple(after), tuple(momenta), weights.left * mixing.weights[..., 0, 0])


def stepped(weights: Weights, step: Surprises, kept: Tensor, momentum: Tensor) -> Weights:
    """The weights after one step, by the definition."""
    kept, momentum = kept.unsqueeze(-1), momentum.unsqueeze(-1)
    news = [a.mT @ d for a, d in zip(*step, strict=True)]
    if weights.momenta:
        news = [momentum * s + u for s, u in zip(weights.momenta, news, strict=True)]
    after = tuple(kept * w + new for w, new in zip(weights.made, news, strict=True))
    return Weights(after, tuple(news) if weights.momenta else (), weights.left * kept[..., 0, 0])


def told(weights: Weights, mixing: Mixing, steps: Surprises) -> Weights:
    """The weights after many steps at once; `mixing` has one line.

    They may be given without what is left of the initial ones, and come so again.
    """
    parts = zip(weights.made, *([weights.momenta] if weights.momenta else []), strict=True)
    layers = zip(parts, steps.slopes, steps.inputs, strict=True)
    after, *momenta = zip(*(made(part, mixing, *pair) for part, *pair in layers), strict=True)
    return Weights(after, momenta[0] if momenta else (), weights.left * mixing.weights[..., 0, 0])


def complete(state: MemoriserState) -> MemoriserState:
    """What a chunk whose last step was just told leaves to the next."""
    weights = told(Weights(state.changes, state.momenta, state.left), state.mixing, state.surprises)
    return MemoriserState(
        weights.made,
        weights.momenta,
        weights.left,
        map_tensors(torch.zeros_like, state.surprises),
        no_mixing(state.mixing.steps[:, :, 0]),
        torch.zeros_like(state.position),
    )


def joined(first: Surprises, second: Surprises) -> Surprises:
    """The steps of both, one after the other."""
    if not first.inputs[0].shape[2]:
        return second
    return map_tensors(lambda *x: torch.cat(x, dim=2), first, second)


def extended(state: MemoriserState, step: Surprises, kept: Tensor, momentum: Tensor) -> MemoriserState:
    """The state with one step more, in whose chunk there is room for it."""
    place = torch.arange(state.mixing.steps.shape[3], device=kept.device) == state.position.unsqueeze(1)
    share = place[:, None, :, None].to(state.left)
    pairs = (zip(*parts, strict=True) for parts in zip(state.surprises, step, strict=True))
    held = Surprises(*(tuple(torch.lerp(old, new, share) for old, new in pair) for pair in pairs))
    mixing = one_more(state.mixing, kept, momentum, place)
    return state._replace(surprises=held, mixing=mixing, position=state.position + 1)


def carry(
    state: MemoriserState, places: ChunkPlaces, chunks: list[Surprises], ways: Sequence[Tensor]
) -> MemoriserState:
    """The state with the steps of each row's last chunk, as far as they did not complete it.

    Args:
        chunks: what was told in each chunk of the piece.
        ways: how, as in `Steps`, each (batch, heads, columns, 3).
    """
    rows = torch.arange(len(places.last), device=places.last.device)
    goes_on = (places.last == 0) & ~places.ended
    stays = goes_on & ~places.full[places.last, rows]
    nothing = map_tensors(torch.zeros_like, state.surprises), no_mixing(state.mixing.steps[:, :, 0])
    if may_look(stays) and not (stays | (places.position > 0)).any():
        return state._replace(surprises=nothing[0], mixing=nothing[1], position=places.position)
    held, mixing = where_rows(stays, (state.surprises, state.mixing), nothing)
    # Which column goes to which place in the chunk.
    comes = places.real[places.last, rows] & (places.position > 0).unsqueeze(1)
    offset = torch.where(goes_on, state.position, 0).unsqueeze(1)
    room = torch.arange(mixing.steps.shape[3], device=rows.device)
    columns = torch.arange(comes.shape[1], device=rows.device)
    moved = ((room - offset).unsqueeze(2) == columns) & comes.unsqueeze(1)
    moved = moved.unsqueeze(1).to(state.left)  # (batch, 1, places, columns)
    told = list(zip(chunks, ways, strict=True))
    if may_look(places.last) and (places.last == places.last[0]).all():
        last, way = told[places.last[0]]
    else:
        last, way = map_tensors(lambda *parts: torch.stack(parts)[places.last, rows], *told)
    stay = 1 - moved.sum(-1, keepdim=True)
    held = map_tensors(lambda old, new: stay * old + moved @ new, held, last)
    _, kept, momentum = way.unbind(-1)
    lines = continued(mixing, step_mixing(kept, momentum, comes.unsqueeze(1).expand_as(kept)))
    mixing = map_tensors(lambda x: x[..., -1:, :], lines)
    steps, momentum_steps = (
        stay.mT * x[..., : len(room)] + x[..., len(room) :] @ moved.mT
        for x in (mixing.steps, mixing.momentum_steps)
    )
    mixing = mixing._replace(steps=steps, momentum_steps=momentum_steps)
    return state._replace(surprises=held, mixing=mixing, position=places.position)


def weighed(
    keys: Float[Tensor, "batch time keys"],
    strength: Float[Tensor, "batch time"] | None,
    mask: Bool[Tensor, "batch time"] | None,
    rate: Float[Tensor, "batch time *heads"] | None,
) -> tuple[Float[Tensor, "batch time *heads"], Bool[Tensor, "batch time"] | None]:
    """The rate and the mask of pairs that are told with a strength: of strength 0 a pair is not written.

    Args:
        rate: None is 1/2.
        mask: None is all pairs, and comes back where there is no strength.
    """
    rate = keys.new_full(keys.shape[:2], 0.5) if rate is None else rate
    if strength is None:
        return rate, mask
    told = strength != 0
    rate = rate * strength.view(*strength.shape, *[1] * (rate.dim() - 2))
    return rate, told if mask is None else mask & told
