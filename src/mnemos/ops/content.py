"""Finding slots by what they hold: the cosine of a key with every slot, sharpened into weights.

Graves, Wayne & Danihelka 2014, eq. 5 and 6; the same in every memory with heads that came after it.
"""

from jaxtyping import Float
from torch import Tensor

from mnemos.ops.delta_rule import unit


def cosine_similarity(
    keys: Float[Tensor, "*rows heads width"], memory: Float[Tensor, "*rows slots width"]
) -> Float[Tensor, "*rows heads slots"]:
    """K(k, M_i) from -1 to 1; 0 for a key of zeros and for an empty slot, with gradients that stay finite.

    Vectors shorter than 1e-3 count as less alike, so that this is continuous at zero.
    """
    return unit(keys) @ unit(memory).mT


def content_weights(
    keys: Float[Tensor, "*rows heads width"],
    strengths: Float[Tensor, "*rows heads"],
    memory: Float[Tensor, "*rows slots width"],
) -> Float[Tensor, "*rows heads slots"]:
    """softmax_i(β K(k, M_i)): even at strength 0, all on the most similar slot as it grows without bound."""
    return (strengths.unsqueeze(-1) * cosine_similarity(keys, memory)).softmax(-1)
