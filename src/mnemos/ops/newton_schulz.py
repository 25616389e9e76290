"""The nearest orthogonal matrix, by products of matrices alone.

A matrix S = U Σ Vᵀ has U Vᵀ nearest among those whose singular values are all one. An odd polynomial of a
matrix, a X + b X Xᵀ X + c X (Xᵀ X)², leaves U and V as they are and maps each singular value by a x + b x³ + c x⁵:
repeated, it takes every value of (0, 1] near one. Jordan et al. 2024, "Muon: An optimizer for hidden layers in
neural networks", whose coefficients are steep at zero at the price of ending within about 0.7 to 1.2.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

QUINTIC = (3.4445, -4.7750, 2.0315)  # a, b, c


def orthogonalised(
    matrices: Float[Tensor, "*many into out"], steps: int = 5, shortest: float = 1e-6
) -> Float[Tensor, "*many into out"]:
    """Newton-Schulz: the matrices with singular values brought near one.

    Those below about 0.003 of the length of a matrix (the root of its sum of squares) stay small at 5 steps,
    and those of 0 stay 0.

    Args:
        steps: of the iteration.
        shortest: a matrix is first scaled to length one; one not much longer than this to less, so that zero
            stays zero, with a finite gradient.
    """
    return _Orthogonalised.apply(matrices, steps, shortest)


class _Orthogonalised(torch.autograd.Function):
    """Keeps the matrices alone: what lies between is made again for the gradient."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, steps: int, shortest: float) -> Tensor:
        ctx.save_for_backward(matrices)
        ctx.steps, ctx.shortest = steps, shortest
        x = matrices * _shrinkage(matrices, shortest)
        tall = x.shape[-2] > x.shape[-1]
        x = x.mT if tall else x
        for _ in range(steps):
            gram = x @ x.mT
            x = QUINTIC[0] * x + _even_part(gram) @ x
        return x.mT if tall else x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (matrices,) = ctx.saved_tensors
        with torch.autocast(matrices.device.type, enabled=False):
            return _backward(matrices, gradient, ctx.steps, ctx.shortest), None, None


def _even_part(gram: Tensor) -> Tensor:
    """b X Xᵀ + c (X Xᵀ)²"""
    return QUINTIC[1] * gram + QUINTIC[2] * gram @ gram


def _shrinkage(matrices: Tensor, shortest: float) -> Tensor:
    return (matrices.square().sum((-2, -1), keepdim=True) + shortest**2).rsqrt()


def _backward(matrices: Tensor, gradient: Tensor, steps: int, shortest: float) -> Tensor:
    tall = matrices.shape[-2] > matrices.shape[-1]
    scale = _shrinkage(matrices, shortest)
    x = (matrices * scale).mT if tall else matrices * scale
    gradient = gradient.mT if tall else gradient
    passed = []
    for _ in range(steps):
        gram = x @ x.mT
        passed.append((x, gram))
        x = QUINTIC[0] * x + _even_part(gram) @ x
    for x, gram in reversed(passed):
        to_even = gradient @ x.mT
        to_gram = QUINTIC[1] * to_even + QUINTIC[2] * (to_even @ gram + gram @ to_even)
        gradient = QUINTIC[0] * gradient + _even_part(gram) @ gradient + (to_gram + to_gram.mT) @ x
    gradient = gradient.mT if tall else gradient
    along = (matrices * gradient).sum((-2, -1), keepdim=True)
    return scale * (gradient - matrices * (along * scale.square()))
