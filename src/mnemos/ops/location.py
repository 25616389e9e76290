"""Finding slots by where they are: from the slots of the last step, some places on.

Graves, Wayne & Danihelka 2014, section 3.3.2. Weights are not negative and sum to 1, and stay so.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def interpolate(
    content: Float[Tensor, "*rows heads slots"],
    previous: Float[Tensor, "*rows heads slots"],
    gates: Float[Tensor, "*rows heads"],
) -> Float[Tensor, "*rows heads slots"]:
    """g w^c + (1 - g) w_(t-1), eq. 7: gate 0 keeps the last weights, gate 1 takes those found by content."""
    return previous.lerp(content, gates.unsqueeze(-1))


def shift(
    weights: Float[Tensor, "*rows heads slots"], shifts: Float[Tensor, "*rows heads shifts"]
) -> Float[Tensor, "*rows heads slots"]:
    """Σ_j w(j) s(i - j), indices modulo the slots, eq. 8: the last slot is followed by the first.

    Args:
        shifts: s, the shares that move by -n, ..., 0, ..., n places; they sum to 1, and their number is odd.
    """
    reach = shifts.shape[-1] // 2
    moved = torch.stack([weights.roll(places, -1) for places in range(-reach, reach + 1)], dim=-2)
    return (shifts.unsqueeze(-2) @ moved).squeeze(-2)


def sharpen(
    weights: Float[Tensor, "*rows heads slots"], exponents: Float[Tensor, "*rows heads"]
) -> Float[Tensor, "*rows heads slots"]:
    """w_i^γ / Σ_j w_j^γ, eq. 9: unchanged at exponent 1, all on the greatest as it grows without bound.

    In logarithms, since powers of small weights vanish, all of them at once where the exponent is large, and
    0 / 0 is what then ended the training of many an implementation. A weight of zero stays zero, to the
    smallest number, and has no gradient.
    """
    logarithms = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    return (exponents.unsqueeze(-1) * logarithms).softmax(-1)
