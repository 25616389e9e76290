"""The algebra of a momentum that Newton-Schulz brings near an orthogonal matrix, for many steps at once.

Behrouz et al. 2025, "ATLAS", eqs. 32 and 33, with gradients a_j ⊗ δ_j of one layer:

    S_i = θ_i S_0 + Σ_j c_ij a_j ⊗ δ_j        W_t = w_t W_0 + Σ_i g_ti NewtonSchulz(S_i).

Neither is made: NewtonSchulz(S_i) = S_i P_i, where P_i, of the layer's narrower side, comes from products of
what S_i is made of (`mnemos.ops.inverse_root`), and

    x S_i P_i = (θ_i x S_0 + Σ_j c_ij (x · a_j) δ_j) P_i.

A layer wider than tall is turned round: there it is P_i S_i.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mnemos.ops.inverse_root import fake_kept, gradient_of_grams, inverse_root


class Momenta(NamedTuple):
    """A layer's momentum after each of some steps: S_i = θ_i S_0 + Σ_j c_ij a_j ⊗ δ_j."""

    kept: Float[Tensor, "batch heads steps one"]  # θ_i
    before: Float[Tensor, "batch heads into out"]  # S_0
    shares: Float[Tensor, "batch heads steps seen"]  # c_ij
    inputs: Float[Tensor, "batch heads seen into"]  # a_j
    slopes: Float[Tensor, "batch heads seen out"]  # δ_j


def turned(momenta: Momenta) -> Momenta:
    """The transposed matrices."""
    kept, before, shares, inputs, slopes = momenta
    return Momenta(kept, before.mT, shares, slopes, inputs)


def last(momenta: Momenta) -> Float[Tensor, "batch heads into out"]:
    """The momentum after all steps."""
    kept, before, shares, inputs, slopes = momenta
    return kept[..., -1:, :] * before + inputs.mT @ (shares[..., -1:, :].mT * slopes)


class _Roots(torch.autograd.Function):
    """P_i of S_i P_i = NewtonSchulz(S_i), by way of S_iᵀ S_i, in float64.

    Autograd by itself would keep matrices of every step in float64.
    """

    @staticmethod
    def forward(ctx: Any, newton_schulz_steps: int, *momenta: Tensor) -> Tensor:
        root, *kept = _found(momenta, newton_schulz_steps)
        ctx.steps = newton_schulz_steps
        ctx.save_for_backward(*momenta, *kept)
        return root

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        momenta, kept = ctx.saved_tensors[: len(Momenta._fields)], ctx.saved_tensors[len(Momenta._fields) :]
        return None, *_gradients(momenta, kept, gradient, ctx.steps)


# Operators of their own, for a compiler would be long at work on them, and gain nothing.


@torch.library.custom_op("mnemos::momentum_roots", mutates_args=())
def _found(momenta: Sequence[Tensor], steps: int) -> list[Tensor]:
    found = inverse_root(_grams(Momenta(*momenta)), steps, dtype=momenta[1].dtype)
    return [found.root, *found.kept]


@_found.register_fake
def _(momenta: Sequence[Tensor], steps: int) -> list[Tensor]:
    of = Momenta(*momenta)
    batch, heads, count, _ = of.kept.shape
    root = of.before.new_empty(batch, heads, count, of.before.shape[3], of.before.shape[3])
    return [root, *fake_kept(root)]


@torch.library.custom_op("mnemos::momentum_roots_backward", mutates_args=())
def _gradients(
    momenta: Sequence[Tensor], kept: Sequence[Tensor], gradient: Tensor, steps: int
) -> list[Tensor]:
    with torch.autocast(gradient.device.type, enabled=False):
        return list(_from_grams(Momenta(*momenta), gradient_of_grams(tuple(kept), gradient, steps)))


@_gradients.register_fake
def _(momenta: Sequence[Tensor], kept: Sequence[Tensor], gradient: Tensor, steps: int) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in momenta]


def _grams(momenta: Momenta) -> Tensor:
    """S_iᵀ S_i"""
    kept, before, shares, inputs, slopes = (x.double() for x in momenta)
    crossed = (before.mT @ inputs.mT).unsqueeze(2)
    kept, own = kept.unsqueeze(-1), shares.unsqueeze(-1) * slopes.unsqueeze(2)
    half = own.mT @ (inputs @ inputs.mT).unsqueeze(2) + kept * crossed
    left, right = torch.cat([half, own.mT], dim=-1), torch.cat([own, kept * crossed.mT], dim=-2)
    square = kept.square() * (before.mT @ before).unsqueeze(2)
    return square.flatten(0, 2).baddbmm_(left.flatten(0, 2), right.flatten(0, 2)).view_as(square)


def _from_grams(momenta: Momenta, gradient: Tensor) -> tuple[Tensor, ...]:
    """The gradients of what the momenta are made of, from those of S_iᵀ S_i; S_i has S_i (Ḡ_i + Ḡ_iᵀ)."""
    kept, before, shares, inputs, slopes = momenta
    kept, own = kept.unsqueeze(-1), shares.unsqueeze(-1) * slopes.unsqueeze(2)
    square, met = before.mT @ before, (inputs @ before).unsqueeze(2)
    rows = torch.cat([own, kept * met], dim=3)
    back, met_back = (rows @ gradient + rows @ gradient.mT).split(own.shape[3], dim=3)
    to_own = met_back + (inputs @ inputs.mT).unsqueeze(2) @ back
    mean = (kept.square().flatten(2).unsqueeze(2) @ gradient.flatten(3)).view_as(square)
    behind = (kept * back).sum(2)
    to_kept = 2 * kept.squeeze(-1) * (gradient.flatten(3) @ square.flatten(2).unsqueeze(-1))
    return (
        to_kept + (back * met).sum((-2, -1)).unsqueeze(-1),
        before @ (mean + mean.mT) + inputs.mT @ behind,
        (to_own * slopes.unsqueeze(2)).sum(-1),
        behind @ before.mT + (back @ own.mT).sum(2) @ inputs,
        (to_own * shares.unsqueeze(-1)).sum(2),
    )


class Orthogonal(NamedTuple):
    """A layer's momenta brought near orthogonal matrices: S_i P_i, or P_i S_i where it is wider than tall."""

    momenta: Momenta
    roots: Float[Tensor, "batch heads steps narrow narrow"]  # P_i


def orthogonal(momenta: Momenta, newton_schulz_steps: int) -> Orthogonal:
    """The momenta of a layer, by so many steps of Newton-Schulz."""
    tall = momenta if _is_tall(momenta) else turned(momenta)
    return Orthogonal(momenta, _Roots.apply(newton_schulz_steps, *tall))


def _is_tall(momenta: Momenta) -> bool:
    into, out = momenta.before.shape[-2:]
    return into >= out


def learned(
    layer: Orthogonal,
    given: Float[Tensor, "batch heads time steps"],
    x: Float[Tensor, "batch heads time into"],
) -> Float[Tensor, "batch heads time out"]:
    """Σ_i g_ti x_t NewtonSchulz(S_i)"""
    (kept, before, shares, inputs, slopes), roots = layer
    if _is_tall(layer.momenta):
        met = (x @ inputs.mT).unsqueeze(3) * shares.unsqueeze(2)  # (batch, heads, time, steps, seen)
        moved = kept.unsqueeze(2) * (x @ before).unsqueeze(3) + met @ slopes.unsqueeze(2)
        return _through_roots(given.unsqueeze(-1) * moved, roots)
    spread = given.mT.unsqueeze(-1) * (x.unsqueeze(2) @ roots)  # (batch, heads, steps, time, into)
    met = (spread @ inputs.mT.unsqueeze(2) * shares.unsqueeze(3)).sum(2)
    return (kept.unsqueeze(-1) * spread).sum(2) @ before + met @ slopes


def all_learned(
    layer: Orthogonal, given: Float[Tensor, "batch heads one steps"]
) -> Float[Tensor, "batch heads into out"]:
    """Σ_i g_i NewtonSchulz(S_i)"""
    tall = _is_tall(layer.momenta)
    kept, before, shares, inputs, slopes = layer.momenta if tall else turned(layer.momenta)
    mean = ((given * kept.mT) @ layer.roots.flatten(3)).unflatten(3, (before.shape[-1], -1)).squeeze(2)
    rows = (given.mT * shares).mT.unsqueeze(-1) * slopes.unsqueeze(3)  # (batch, heads, seen, steps, out)
    total = before @ mean + inputs.mT @ _through_roots(rows, layer.roots)
    return total if tall else total.mT


def _through_roots(rows: Tensor, roots: Tensor) -> Tensor:
    """Σ_i rows_i P_i, for rows (batch, heads, rows, steps, narrow)."""
    return rows.flatten(3) @ roots.flatten(2, 3)
