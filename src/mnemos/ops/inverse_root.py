"""The matrix that a matrix is multiplied by in Newton-Schulz, from the matrix's Gram matrix alone.

An iteration of `mnemos.ops.newton_schulz` is X ← X z(Xᵀ X) with a polynomial z, and polynomials of one matrix
commute. So all iterations together are one product, orthogonalised(S) = S P, where P is a polynomial of
G = Sᵀ S that comes near G^(-1/2). Whoever has many tall S of few parts has G without them.

With x = c^(-1/4) y and h = yᵀ y, z is a square and a positive number, and nothing cancels where h is small:

    z = (h + e)² + d        y ← y z        h ← h z²        P = Π z,        e = b / 2√c,  d = a - b² / 4c.

G has squares of S's singular values. Those of 0.001 of the length, which five iterations raise to 0.4, would
be lost in what float32 rounds at G's largest: so G is given in float64.

A GPU multiplies matrices, in float64 up to the last four iterations. A CPU is faster with eigenvalues λ, of
which P has p(λ) on the same axes. The gradient is known there too: of G = V λ Vᵀ it is
V (p[λ_i, λ_j] ∘ Vᵀ P̄ V) Vᵀ, with divided differences p[x, y] = (p(x) - p(y)) / (x - y), which products and
squares have without division:

    (p q)[x, y] = p(x) q[x, y] + p[x, y] q(y)        (p²)[x, y] = (p(x) + p(y)) p[x, y].
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mnemos.ops.newton_schulz import QUINTIC

_A, _B, _C = QUINTIC
_ROOT = math.sqrt(_C)
_E, _D = _B / (2 * _ROOT), _A - _B**2 / (4 * _C)


class InverseRoot(NamedTuple):
    """P, and what its gradient needs."""

    root: Float[Tensor, "*many out out"]  # P
    kept: tuple[Tensor, ...]


def inverse_root(
    grams: Float[Tensor, "*many out out"],
    steps: int = 5,
    shortest: float = 1e-6,
    dtype: torch.dtype = torch.float32,
) -> InverseRoot:
    """P of S P = orthogonalised(S), from Sᵀ S.

    Args:
        grams: Sᵀ S in float64.
        steps: of Newton-Schulz, at least 1.
        shortest: as in `orthogonalised`.
        dtype: of the result.
    """
    by = _by_eigenvalues if grams.device.type == "cpu" else _by_products
    return by(grams, steps, shortest, dtype)


def gradient_of_grams(
    kept: tuple[Tensor, ...],
    gradient: Float[Tensor, "*many out out"],
    steps: int = 5,
    shortest: float = 1e-6,
) -> Float[Tensor, "*many out out"]:
    """From the gradient of P that of Sᵀ S, of which the symmetric part counts.

    Autograd by itself would keep what lies between, and divide by differences of eigenvalues.

    Args:
        kept: by `inverse_root`.
    """
    if gradient.device.type == "cpu":
        return _back_by_eigenvalues(kept, gradient, steps)
    return _back_by_products(kept, gradient, steps, shortest)


def fake_kept(root: Tensor) -> tuple[Tensor, ...]:
    """Tensors like those that are kept for the gradient of this root: for compilers."""
    if root.device.type == "cpu":
        *many, _, out = root.shape
        return torch.empty_like(root), root.new_empty(*many, 1, out), root.new_empty(*many, 1, 1)
    return (torch.empty_like(root, dtype=torch.float64),)


def _scale(grams: Tensor, shortest: float) -> Tensor:
    """1 / length of S; (*many 1 1)."""
    return (grams.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] + shortest**2).rsqrt()


def _by_eigenvalues(grams: Tensor, steps: int, shortest: float, dtype: torch.dtype) -> InverseRoot:
    scale = _scale(grams, shortest)
    sound = scale.isfinite() & (scale > 0)  # as all entries then are: LAPACK would refuse others
    values, axes = torch.linalg.eigh(grams if sound.all() else torch.where(sound, grams, 0))
    values = values.clamp_min(0).unsqueeze(-2)  # what rounds to less than 0 would grow without bound
    values = torch.where(sound, values * scale.square(), torch.nan).to(dtype)
    axes, scale = axes.to(dtype, memory_format=torch.contiguous_format), scale.to(dtype)
    _, z, _, before = _course(values, steps)[-1]
    return InverseRoot((axes * (scale * before * z)) @ axes.mT, (axes, values, scale))


def _course(values: Tensor, steps: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """u = h + e, z and h of every iteration, and the product of all z before it."""
    h, before, course = _ROOT * values, torch.ones_like(values), []
    for _ in range(steps):
        u = h + _E
        z = u.square() + _D
        course.append((u, z, h, before))
        h, before = h * z.square(), before * z
    return course


def _back_by_eigenvalues(kept: tuple[Tensor, ...], gradient: Tensor, steps: int) -> Tensor:
    axes, values, scale = kept  # P = s p(s² G), s = (tr G + shortest²)^(-1/2)
    course = _course(values, steps)
    _, z, _, before = course[-1]
    turned = axes.mT @ gradient @ axes
    back = turned * _divided(course, scale**3)
    to_scale = scale**3 * _along(turned, before * z) + 2 * _along(back, values)
    back.diagonal(dim1=-2, dim2=-1).sub_(0.5 * to_scale.squeeze(-1))
    return axes @ back @ axes.mT


def _along(matrices: Tensor, diagonal: Tensor) -> Tensor:
    return (matrices.diagonal(dim1=-2, dim2=-1).unsqueeze(-2) * diagonal).sum(-1, keepdim=True)


def _divided(course: list[tuple[Tensor, Tensor, Tensor, Tensor]], times: Tensor) -> Tensor:
    """p[λ_i, λ_j] times a number: Σ_k (Π_{l<k} z_l)(λ_i) z_k[λ_i, λ_j] (Π_{l>k} z_l)(λ_j) over iterations k.

    There z_k[x, y] is (u(x) + u(y)) h_k[x, y], and of the next iteration h[x, y] is

        (z(y)² + h(x) (z(x) + z(y)) (u(x) + u(y))) h_k[x, y].

    What stands before h_k are sums of few columns times rows: products of two narrow matrices.
    """
    one = torch.ones_like(course[0][0])
    after = list(itertools.accumulate((z for _, z, _, _ in reversed(course)), torch.mul, initial=one))[-2::-1]
    of_h = _sum((_ROOT * times * one, one))
    divided = torch.zeros_like(of_h)
    for number, (u, z, h, before) in enumerate(course):
        divided.addcmul_(_sum((before * u, after[number]), (before, after[number] * u)), of_h)
        if number + 1 < len(course):
            of_h *= _sum((one, z.square()), (h * z * u, one), (h * z, u), (h * u, z), (h, z * u))
    return divided


def _sum(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Σ x(λ_i) y(λ_j) over pairs of x and y."""
    columns, rows = (torch.cat(parts, dim=-2) for parts in zip(*pairs, strict=True))
    return columns.mT @ rows


def _by_products(grams: Tensor, steps: int, shortest: float, dtype: torch.dtype) -> InverseRoot:
    scale = _scale(grams, shortest)
    *_, (_, z, _, before) = _products(grams, scale, steps, dtype)
    return InverseRoot(scale.to(dtype) * (z if before is None else before @ z), (grams,))


def _products(
    grams: Tensor, scale: Tensor, steps: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """u = h + e, z and h of every iteration, and the product of all z before it."""
    h, before = grams * (_ROOT * scale.square()), None
    for number in range(steps):
        u = h.clone()
        u.diagonal(dim1=-2, dim2=-1).add_(_E)
        z = u @ u
        z.diagonal(dim1=-2, dim2=-1).add_(_D)
        yield u.to(dtype), z.to(dtype), h.to(dtype), before
        if number + 1 < steps:
            h, z = h @ (z @ z), z.to(dtype)
            h = h if number + 5 < steps else h.to(dtype)  # what is small has grown twelvefold, or more
            before = z if before is None else before @ z


def _back_by_products(kept: tuple[Tensor, ...], gradient: Tensor, steps: int, shortest: float) -> Tensor:
    """The derivative of a polynomial of a symmetric matrix is its own adjoint: it is taken forwards."""
    (grams,) = kept
    dtype, scale = gradient.dtype, _scale(grams, shortest)
    even = 0.5 * (gradient + gradient.mT)
    of_h, of_whole, whole = _ROOT * even, even, even
    for u, z, h, before in _products(grams, scale, steps, dtype):
        of_z = of_h @ u + u @ of_h
        of_whole = of_z if before is None else of_whole @ z + before @ of_z
        whole = z if before is None else before @ z
        of_h = of_h @ (z @ z) + h @ (of_z @ z + z @ of_z)
    length_one, scale = (grams * scale.square()).to(dtype), scale.to(dtype)
    to_scale = (even * whole + 2 * of_whole * length_one).sum((-2, -1))
    of_whole.diagonal(dim1=-2, dim2=-1).sub_(0.5 * to_scale.unsqueeze(-1))
    return of_whole * scale**3
