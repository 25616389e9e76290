"""The decay of Mamba-2 and of what came after it: a rate times a step that the input sets.

Dao & Gu 2024, "Transformers are SSMs": α = exp(-a Δ), Δ = softplus(W x + b). What is computed with is the
logarithm, which is not rounded near α = 1, where memories that last live.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

STEP_RANGE = (1e-3, 1e-1)  # of softplus(b), where training begins
LARGEST_RATE = 16.0


def log_decay_of(
    steps: Float[Tensor, "*shape channels"], log_rate: Float[Tensor, "*rates"]
) -> Float[Tensor, "*shape channels"]:
    """log α = -exp(log a) softplus(steps), at most 0, never below float32.

    Args:
        steps: Δ before the softplus.
        log_rate: log a, of a shape that goes with that of `steps`.
    """
    precise = torch.promote_types(steps.dtype, torch.float32)
    steps = steps.to(precise)
    # Torch 2.13 compiles a wrong layout for the backward of its softplus.
    return -log_rate.to(precise).exp() * torch.logaddexp(steps, torch.zeros_like(steps))


def log_uniform(bounds: tuple[float, float], count: int) -> Float[Tensor, " count"]:
    """The logarithms of so many numbers between the bounds, uniform."""
    return torch.empty(count).uniform_(math.log(bounds[0]), math.log(bounds[1]))


def starting_steps(count: int, bounds: tuple[float, float] = STEP_RANGE) -> Float[Tensor, " count"]:
    """Biases b with softplus(b) drawn log-uniformly between the bounds, as in Mamba."""
    steps = log_uniform(bounds, count).exp()
    return steps + (-torch.expm1(-steps)).log()  # the inverse of softplus


def starting_log_rates(count: int) -> Float[Tensor, " count"]:
    """Logarithms of rates a drawn uniformly from 1 to 16, as in Mamba-2."""
    return (1 + (LARGEST_RATE - 1) * torch.rand(count)).log()
