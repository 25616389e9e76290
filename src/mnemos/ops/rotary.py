"""Positions as rotations: Su et al. 2021, "RoFormer"."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rotate(
    vectors: Float[Tensor, "batch time heads keys"], positions: Int[Tensor, "batch time"], base: float
) -> Float[Tensor, "batch time heads keys"]:
    """Turns the pairs (i, i + keys / 2) of a vector by position x base^(-2 i / keys), Su et al. 2021."""
    half = vectors.shape[-1] // 2
    speeds = base ** (-torch.arange(half, device=vectors.device) / half)
    angles = positions[:, :, None, None] * speeds
    cosine, sine = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    left, right = vectors.split(half, dim=-1)
    return torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1)
