"""Writing to many slots at once, each as far as it is weighted, and reading them so.

Graves, Wayne & Danihelka 2014, sections 3.1 and 3.2; the same in every memory with heads that came after it.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def read(
    memory: Float[Tensor, "*rows slots width"], weights: Float[Tensor, "*rows heads slots"]
) -> Float[Tensor, "*rows heads width"]:
    """Σ_i w(i) M(i), eq. 2."""
    return weights @ memory


def erase_add(
    memory: Float[Tensor, "*rows slots width"],
    weights: Float[Tensor, "*rows heads slots"],
    erasures: Float[Tensor, "*rows heads width"],
    additions: Float[Tensor, "*rows heads width"],
) -> Float[Tensor, "*rows slots width"]:
    """M Π_h (1 - w_h e_hᵀ) + Σ_h w_h a_hᵀ, eq. 3 and 4: all heads erase, and then all add.

    So the order of the heads does not matter. With all of a weight on one slot, an erasure of ones replaces
    what it held.

    Args:
        erasures: e, from 0 to 1.
        additions: a.
    """
    kept = (1 - weights.unsqueeze(-1) * erasures.unsqueeze(-2)).prod(-3)
    return memory * kept + weights.mT @ additions


def erase_add_forward(memory: Tensor, weights: Tensor, erasures: Tensor, additions: Tensor) -> Tensor:
    """`erase_add` of one head without autograd."""
    return torch.addcmul(memory, memory * weights.mT, erasures, value=-1).addcmul_(weights.mT, additions)


def erase_add_backward(
    memory: Tensor, weights: Tensor, erasures: Tensor, additions: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From the gradient of what one head left to those of memory, weights, erasures and additions."""
    erased = gradient * memory
    to_weights = torch.baddbmm(torch.bmm(additions, gradient.mT), erasures, erased.mT, alpha=-1)
    to_memory = torch.addcmul(gradient, gradient * weights.mT, erasures, value=-1)
    return to_memory, to_weights, torch.bmm(weights, erased).neg_(), torch.bmm(weights, gradient)
