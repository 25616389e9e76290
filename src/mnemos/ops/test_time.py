"""The algebra of a memory that is trained while it is used, chunk by chunk.

Behrouz et al. 2025, "Titans", eqs. 9 to 14 and section 3.2; Sun et al. 2024, "Learning to (Learn at Test
Time)", section 2.5. The memory is the weights of a network. Every step has a surprise u_i, which is minus its
rate times the gradient of its loss at the weights with which its *chunk* began, and

    S_t = η_t S_{t-1} + u_t        W_t = (1 - α_t) W_{t-1} + S_t.

The gradient of a layer is an outer product, u_i = a_i ⊗ δ_i, of what went into the layer and what came back
to its output. Until the next chunk no W_t need ever be made, for it is linear in W_0, S_0 and the u_i:

    W_t = w_t W_0 + s_t S_0 + Σ_i c_ti a_i ⊗ δ_i
    q W_t = w_t q W_0 + s_t q S_0 + Σ_i c_ti (q · a_i) δ_i.

The coefficients solve two bidiagonal systems, for the two recurrences are (I - shifted η) S = u and
(I - shifted (1 - α)) W = S. Nothing is divided by a product that may have vanished. The same serves a chunk's
own start, so that weights need not be made for every chunk either.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_LOG_ROOT = 0.5 * math.log(2 * math.pi)


class Mixing(NamedTuple):
    """What the weights after so many steps are made of, a line for each number of steps."""

    weights: Float[Tensor, "batch heads after one"]  # w_t, of the weights before the steps
    momenta: Float[Tensor, "batch heads after one"]  # s_t, of the momentum there
    steps: Float[Tensor, "batch heads after steps"]  # c_ti, of each step's surprise
    momentum_kept: Float[Tensor, "batch heads after one"]  # of the momentum before the steps in S_t
    momentum_steps: Float[Tensor, "batch heads after steps"]  # of each step's surprise in S_t


def no_mixing(like: Float[Tensor, "batch heads steps"]) -> Mixing:
    """The one line of weights that have seen none of these steps."""
    nothing = torch.zeros_like(like).unsqueeze(2)
    whole = like.new_ones(*like.shape[:2], 1, 1)
    return Mixing(whole, torch.zeros_like(whole), nothing, whole, nothing)


def step_mixing(
    kept: Float[Tensor, "batch heads steps"],
    momentum: Float[Tensor, "batch heads steps"] | None,
    real: Bool[Tensor, "batch heads steps"],
) -> Mixing:
    """How surprises, momentum and decay add up, after 0 steps to all of them.

    Args:
        kept: 1 - α, what a step leaves of the weights.
        momentum: η, what a step leaves of the momentum; None is nothing.
        real: a step that is not is the identity: it neither decays nor lets the momentum act.
    """
    momentum = torch.zeros_like(kept) if momentum is None else momentum
    identity = torch.eye(kept.shape[-1] + 1, dtype=kept.dtype, device=kept.device)
    weights = _run_through(torch.where(real, kept, 1), identity)
    momenta = _run_through(torch.where(real, momentum, 1), identity)
    mixed = (weights[..., 1:] * real.unsqueeze(-2)) @ momenta[..., 1:, :]
    return Mixing(weights[..., :1], mixed[..., :1], mixed[..., 1:], momenta[..., :1], momenta[..., 1:])


def one_more(
    mixing: Mixing,
    kept: Float[Tensor, "batch heads one"],
    momentum: Float[Tensor, "batch heads one"],
    place: Bool[Tensor, "batch steps"],
) -> Mixing:
    """The one line of `mixing` after one step more.

    Args:
        place: where the step stands among the steps.
    """
    kept, momentum, here = kept.unsqueeze(-1), momentum.unsqueeze(-1), place[:, None, None]
    momentum_kept = momentum * mixing.momentum_kept
    momentum_steps = (momentum * mixing.momentum_steps).masked_fill(here, 1)
    return Mixing(
        kept * mixing.weights,
        torch.addcmul(momentum_kept, kept, mixing.momenta),
        torch.addcmul(momentum_steps, kept, mixing.steps).masked_fill(here, 1),
        momentum_kept,
        momentum_steps,
    )


def continued(before: Mixing, mixing: Mixing) -> Mixing:
    """`mixing` of steps that come after others, whose mixing is the one line of `before`, as one of all."""
    weights, momenta, steps, kept, momentum_steps = mixing
    held = weights * before.steps + momenta * before.momentum_steps
    return Mixing(
        weights * before.weights,
        weights * before.momenta + momenta * before.momentum_kept,
        torch.cat([held, steps], dim=-1),
        kept * before.momentum_kept,
        torch.cat([kept * before.momentum_steps, momentum_steps], dim=-1),
    )


def moments(mixing: Mixing, start: int, end: int, seen: int) -> Mixing:
    """The lines from `start` to `end` - 1, of whose steps only the first `seen` may count."""
    weights, momenta, steps, kept, momentum_steps = (part[..., start:end, :] for part in mixing)
    return Mixing(weights, momenta, steps[..., :seen], kept, momentum_steps[..., :seen])


def moment(mixing: Mixing, count: Int[Tensor, "batch"]) -> Mixing:
    """The line after `count` steps of each row."""
    place = count.view(-1, 1, 1, 1)
    return Mixing(*(part.gather(2, place.expand(*part.shape[:2], 1, part.shape[3])) for part in mixing))


def _run_through(factors: Tensor, identity: Tensor) -> Tensor:
    """Products of the factors from step to step: (I - shifted factors)⁻¹, stable even where they are 0."""
    system = torch.diag_embed(-factors, offset=-1)
    return torch.linalg.solve_triangular(system, identity.expand_as(system), upper=False, unitriangular=True)


class MixedLayers(NamedTuple):
    """Layers with weights that are never made: Σ_p share_p W_p + Σ_i c_i a_i ⊗ δ_i, other ones for each line
    of the shares and coefficients. A share of None is 1, and coefficients of None are zeros.

    What else layers make of an input may be given as functions; these are not gone back through.
    """

    parts: Sequence[tuple[Tensor | None, Sequence[Tensor]]]  # shares (batch, heads, after, 1); by layer, W_p
    steps: Float[Tensor, "batch heads after steps"] | None  # c_ti
    inputs: Sequence[Float[Tensor, "batch heads steps _into"]]  # a_i by layer
    slopes: Sequence[Float[Tensor, "batch heads steps _out"]]  # δ_i by layer
    others: Sequence[Callable[[Tensor], Tensor]] = ()  # by layer, of (batch, heads, time, into)


def through(
    layers: MixedLayers, number: int, x: Float[Tensor, "batch heads time into"]
) -> Float[Tensor, "batch heads time out"]:
    """What a layer makes of x."""
    (share, matrices), *others = layers.parts
    known = _added(None, share, x, matrices[number])
    for share, matrices in others:
        known = _added(known, share, x, matrices[number])
    if layers.others:
        known = known + layers.others[number](x)
    if layers.steps is None:
        return known
    return _plus(known, layers.steps * (x @ layers.inputs[number].mT), layers.slopes[number])


def back_through(
    layers: MixedLayers, number: int, slope: Float[Tensor, "batch heads time out"]
) -> Float[Tensor, "batch heads time into"]:
    """What of a slope at a layer's output comes back to its input."""
    backs = (
        _Back.apply(slope if share is None else share * slope, matrices[number])
        for share, matrices in layers.parts
    )
    known = functools.reduce(torch.add, backs)
    if layers.steps is None:
        return known
    return _plus(known, layers.steps * (slope @ layers.slopes[number].mT), layers.inputs[number])


def _added(known: Tensor | None, share: Tensor | None, x: Tensor, matrix: Tensor) -> Tensor:
    """known + share x @ matrix, the share being put where it has the less to do."""
    if share is not None and matrix.shape[-2] <= matrix.shape[-1]:
        x, share = share * x, None
    if share is not None:
        more = share * (x @ matrix)
        return more if known is None else known + more
    return x @ matrix if known is None else _plus(known, x, matrix)


def _plus(known: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """known + left @ right"""
    total = torch.baddbmm(known.flatten(0, 1), left.flatten(0, 1), right.flatten(0, 1))
    return total.view(known.shape)


class _Back(torch.autograd.Function):
    """slope @ weights.mT, with products of such an order that none is slow where there are few slopes, and
    that the gradient of the weights lies in memory as they do."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(slope, weights)
        return slope @ weights.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        slope, weights = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return gradient @ weights, gradient.mT @ slope


class _Made(torch.autograd.Function):
    """W' = w W + s S + Σ c_i a_i ⊗ δ_i and S' = e S + Σ m_i a_i ⊗ δ_i, with few passes over the weights.

    Autograd by itself would make a tensor of the weights' size for each product and for each gradient of a
    coefficient, and the weights are large beside what a chunk holds. Without momentum there is W' alone.
    """

    @staticmethod
    def forward(
        ctx: Any, shares: Tensor, steps: Tensor, slopes: Tensor, inputs: Tensor, *parts: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(shares, steps, slopes, inputs, *parts)
        made = [shares[:, :1] * parts[0]]
        if len(parts) > 1:
            made[0].addcmul_(shares[:, 1:2], parts[1])
            made.append(shares[:, 2:] * parts[1])
        turned = inputs.mT
        return tuple(
            total.baddbmm_(turned, share * slopes)
            for total, share in zip(made, steps.split(1, dim=2), strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(gradients[0].device.type, enabled=False):
            return _made_backward(gradients, ctx.saved_tensors)


def _made_backward(gradients: Sequence[Tensor], saved: Sequence[Tensor]) -> tuple[Tensor, ...]:
    shares, steps, slopes, inputs, *parts = saved
    flat = [part.flatten(1).unsqueeze(2) for part in parts]
    first = gradients[0].flatten(1).unsqueeze(1)
    to_shares = [first @ part for part in flat]
    to_parts = [shares[:, :1] * gradients[0]]
    if len(parts) > 1:
        to_shares.append(gradients[1].flatten(1).unsqueeze(1) @ flat[1])
        to_parts.append((shares[:, 1:2] * gradients[0]).addcmul_(shares[:, 2:], gradients[1]))
    backs = [inputs @ gradient for gradient in gradients]
    to_steps = [(back * slopes).sum(-1, keepdim=True) for back in backs]
    to_slopes, to_inputs = steps[..., :1] * backs[0], (steps[..., :1] * slopes) @ gradients[0].mT
    if len(parts) > 1:
        to_slopes = to_slopes.addcmul_(steps[..., 1:], backs[1])
        to_inputs = to_inputs.baddbmm_(steps[..., 1:] * slopes, gradients[1].mT)
    return torch.cat(to_shares, dim=1), torch.cat(to_steps, dim=2), to_slopes, to_inputs, *to_parts


def made(
    parts: Sequence[Float[Tensor, "batch heads into out"]],
    mixing: Mixing,
    slopes: Float[Tensor, "batch heads steps out"],
    inputs: Float[Tensor, "batch heads steps into"],
) -> tuple[Float[Tensor, "batch heads _into _out"], ...]:
    """Weights after all steps, and their momentum, by what they are made of.

    Args:
        parts: weights and momentum before the steps, or weights alone where there is no momentum.
        mixing: that of one moment.
    """
    shares, steps = [mixing.weights], [mixing.steps]
    if len(parts) > 1:
        shares += [mixing.momenta, mixing.momentum_kept]
        steps += [mixing.momentum_steps]
    coefficients = torch.cat(shares, dim=2).flatten(0, 1), torch.cat(steps, dim=2).flatten(0, 1).mT
    results = _Made.apply(*coefficients, *(x.flatten(0, 1) for x in (slopes, inputs, *parts)))
    return tuple(result.view_as(parts[0]) for result in results)


class _GeluSlope(torch.autograd.Function):
    """aten's gelu_backward, whose own backward autograd would make of twice as many passes."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(slope, x)
        return torch.ops.aten.gelu_backward(slope, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        slope, x = ctx.saved_tensors
        square = x * x
        curvature = (2 - square) * torch.exp(-0.5 * square - _LOG_ROOT)  # (2 - x²) φ(x)
        return torch.ops.aten.gelu_backward(gradient, x), gradient * slope * curvature


def gelu_slope(
    slope: Float[Tensor, "batch heads time width"], x: Float[Tensor, "batch heads time width"]
) -> Float[Tensor, "batch heads time width"]:
    """What of a slope after gelu(x) comes back to x."""
    return _GeluSlope.apply(slope, x)


def squared_error(
    answers: Float[Tensor, "*rows width"], values: Float[Tensor, "*rows width"]
) -> Float[Tensor, "*rows width"]:
    """The gradient of |M(k) - v|², the loss of TTT and Titans."""
    return 2 * (answers - values)


def dot_product(
    answers: Float[Tensor, "*rows width"], values: Float[Tensor, "*rows width"]
) -> Float[Tensor, "*rows width"]:
    """The gradient of -2 M(k) · v, that of `squared_error` at a memory that answers zero: Hebb's rule."""
    return -2 * values.expand_as(answers)


def huber(
    answers: Float[Tensor, "*rows width"], values: Float[Tensor, "*rows width"], threshold: float = 1.0
) -> Float[Tensor, "*rows width"]:
    """The gradient of the squared error, of a straight line beyond `threshold`: Huber's loss, MIRAS' Yaad."""
    return 2 * (answers - values).clamp(-threshold, threshold)


def power(
    answers: Float[Tensor, "*rows width"], values: Float[Tensor, "*rows width"], degree: float = 3.0
) -> Float[Tensor, "*rows width"]:
    """The gradient of Σ |M(k) - v|^p for p above 1: MIRAS' Moneta."""
    error = answers - values
    return degree * error.sign() * error.abs().clamp_min(1e-6) ** (degree - 1) * (error != 0)
