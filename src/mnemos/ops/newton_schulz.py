"""The nearest orthogonal matrix, by products of matrices alone.

Of all matrices whose singular values are one, U Vᵀ is nearest to S = U Σ Vᵀ. An odd polynomial of a matrix,
a X + b X Xᵀ X + c X (Xᵀ X)², leaves U and V as they are and maps each singular value by a x + b x³ + c x⁵:
repeated, it takes every value of (0, 1] near one. Jordan et al. 2024, "Muon: An optimizer for hidden layers
in neural networks", whose coefficients are steep at zero at the price of ending within about 0.7 to 1.2.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

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
    found: Tensor = _orthogonalised(matrices, steps, shortest)
    return found


@torch.library.custom_op("mnemos::newton_schulz", mutates_args=())
def _orthogonalised(matrices: Tensor, steps: int, shortest: float) -> Tensor:
    """An operator of its own, which keeps the matrices alone: its gradient makes again what lies between."""
    x, tall, _ = _wide(matrices, shortest)
    for _ in range(steps):
        x = QUINTIC[0] * x + _even_part(x @ x.mT) @ x
    return (x.mT if tall else x).clone(memory_format=torch.contiguous_format)


@_orthogonalised.register_fake
def _(matrices: Tensor, steps: int, shortest: float) -> Tensor:
    return torch.empty_like(matrices, memory_format=torch.contiguous_format)


@torch.library.custom_op("mnemos::newton_schulz_backward", mutates_args=())
def _backward(matrices: Tensor, gradient: Tensor, steps: int, shortest: float) -> Tensor:
    x, tall, scale = _wide(matrices, shortest)
    passed = []
    for _ in range(steps):
        gram = x @ x.mT
        passed.append((x, gram))
        x = QUINTIC[0] * x + _even_part(gram) @ x
    back = gradient.mT if tall else gradient
    for x, gram in reversed(passed):
        to_even = back @ x.mT
        to_gram = QUINTIC[1] * to_even + QUINTIC[2] * (to_even @ gram + gram @ to_even)
        back = QUINTIC[0] * back + _even_part(gram) @ back + (to_gram + to_gram.mT) @ x
    back = back.mT if tall else back
    along = (matrices * back).sum((-2, -1), keepdim=True)
    return scale * (back - matrices * (along * scale.square()))


@_backward.register_fake
def _(matrices: Tensor, gradient: Tensor, steps: int, shortest: float) -> Tensor:
    return torch.empty_like(matrices, memory_format=torch.contiguous_format)


def _wide(matrices: Tensor, shortest: float) -> tuple[Tensor, bool, Tensor]:
    """The matrices scaled to length one, wider than tall; whether they were turned; and what scaled them."""
    scale = (matrices.square().sum((-2, -1), keepdim=True) + shortest**2).rsqrt()
    tall = matrices.shape[-2] > matrices.shape[-1]
    return (matrices * scale).mT if tall else matrices * scale, tall, scale


def _even_part(gram: Tensor) -> Tensor:
    """b X Xᵀ + c (X Xᵀ)²"""
    return QUINTIC[1] * gram + QUINTIC[2] * gram @ gram


def _save(ctx: Any, inputs: tuple[Tensor, int, float], output: Tensor) -> None:
    matrices, ctx.steps, ctx.shortest = inputs
    ctx.save_for_backward(matrices)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    (matrices,) = ctx.saved_tensors
    with torch.autocast(matrices.device.type, enabled=False):
        return _backward(matrices, gradient, ctx.steps, ctx.shortest), None, None


_orthogonalised.register_autograd(_gradients, setup_context=_save)
