"""Continuous counters at the k locations nearest to an address: what a network can be trained through.

Bricken & Pehlevan 2021, "Attention Approximates Sparse Distributed Memory", and Bricken et al. 2023, "Sparse
Distributed Memory is a Continual Learner". In place of the locations within a radius the k nearest by cosine
are active, each by how much nearer it is than the first that is not; so nothing jumps when that changes:

    a_i(x) = [cos(x, h_i) - cos(x, h_(k+1))]_+ / norm,    C_i <- C_i + β a_i(key) v,    s = Σ_i a_i(query) C_i

The activations are of length one, so that a key alone in memory answers exactly what was written.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mnemos.ops.delta_rule import unit


def top_k_activations(
    queries: Float[Tensor, "*shape keys"], addresses: Float[Tensor, "slots keys"], k: int
) -> Float[Tensor, "*shape slots"]:
    """How active each location is: at most k are, and none for a query of zeros. k is below the locations."""
    cosines = unit(queries) @ unit(addresses).mT
    return unit((cosines - cosines.topk(k + 1, dim=-1).values[..., -1:]).relu())


def add_and_sum_loop(
    counters: Float[Tensor, "batch slots width"],
    activations: Float[Tensor, "batch time slots"],
    values: Float[Tensor, "batch time width"],
    strengths: Float[Tensor, "batch time"],
    reset: Bool[Tensor, "batch time"],
) -> tuple[Float[Tensor, "batch time width"], Float[Tensor, "batch slots width"]]:
    """Reads, then writes, step by step, at the same locations: the sums, and the counters after the last.

    Args:
        strengths: β; 0 makes the step the identity on the counters.
        reset: true where the counters are zeroed before the step.
    """
    sums = []
    steps = zip(*(x.unbind(1) for x in (activations, values, strengths, reset)), strict=True)
    for active, value, strength, fresh in steps:
        counters = counters.masked_fill(fresh[:, None, None], 0)
        sums.append(torch.einsum("bs,bsw->bw", active, counters))
        counters = counters + active.unsqueeze(2) * (strength.unsqueeze(1) * value).unsqueeze(1)
    return torch.stack(sums, dim=1) if sums else torch.zeros_like(values), counters


def add_and_sum(
    counters: Float[Tensor, "batch slots width"],
    activations: Float[Tensor, "batch time slots"],
    values: Float[Tensor, "batch time width"],
    strengths: Float[Tensor, "batch time"],
    reset: Bool[Tensor, "batch time"],
) -> tuple[Float[Tensor, "batch time width"], Float[Tensor, "batch slots width"]]:
    """The same for all steps together: what earlier steps wrote counts by the overlap of activations."""
    document = reset.cumsum(1).unsqueeze(2)  # a step sees the earlier ones of its own document
    first, last = document == 0, document == document[:, -1:]
    values = strengths.unsqueeze(2) * values
    overlaps = (activations @ activations.mT * (document == document.mT)).tril(-1)
    sums = (activations * first) @ counters + overlaps @ values
    kept = counters.masked_fill(~first[:, -1:], 0)
    return sums, kept + (activations * last).mT @ values
