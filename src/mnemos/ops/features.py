"""Feature maps: what a key becomes before it addresses a matrix.

A matrix holds about as many associations as its keys have features, so maps to more features hold more.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def elu_plus_one(x: Float[Tensor, "*shape keys"]) -> Float[Tensor, "*shape keys"]:
    """Positive features: Katharopoulos et al. 2020, "Transformers are RNNs", eq. 7."""
    return x.relu() + x.clamp_max(0).exp()  # torch 2.13 compiles a wrong layout for the backward of its elu


def deterministic_parameter_free(
    x: Float[Tensor, "*shape keys"], shifts: int
) -> Float[Tensor, "*shape features"]:
    """2 x keys x `shifts` sparse features: Schlag, Irie & Schmidhuber 2021, eq. 37 (DPFP-ν).

    With r the positive parts of x and of -x side by side, feature (j, i) is r_i r_{i+j}, the index going
    round, for j from 1 to ν: most are zero, and keys far apart share none.
    """
    parts = torch.cat([x, -x], dim=-1).relu()
    return torch.cat([parts * parts.roll(shift, -1) for shift in range(1, shifts + 1)], dim=-1)


def sum_to_one(x: Float[Tensor, "*shape features"]) -> Float[Tensor, "*shape features"]:
    """Divides positive features by their sum: Schlag et al. 2021, eq. 26; sums below 1e-3 count as 1e-3."""
    return x / x.sum(-1, keepdim=True).clamp_min(1e-3)
