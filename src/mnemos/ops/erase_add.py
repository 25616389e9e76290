"""Writing to many slots at once, each as far as it is weighted, and reading them so.

Graves, Wayne & Danihelka 2014, sections 3.1 and 3.2; the same in every memory with heads that came after it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mnemos.ops.few_rows import few_rows


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
    if weights.shape[-2] == 1:  # M + w (a - e M): fewer operations, and no matrix but the two
        return torch.addcmul(memory, weights.mT, torch.addcmul(additions, erasures, memory, value=-1))
    kept = (1 - weights.unsqueeze(-1) * erasures.unsqueeze(-2)).prod(-3)
    return memory * kept + weights.mT @ additions


def erase_add_forward(memory: Tensor, weights: Tensor, erasures: Tensor, additions: Tensor) -> Tensor:
    """`erase_add` of one head without autograd: M + w (a - e M)."""
    after = torch.empty_like(memory)
    everything = (memory, weights.mT, erasures, additions, after)
    for before, weight, erased, added, now in few_rows(memory, everything):
        torch.addcmul(before, weight, torch.addcmul(added, erased, before, value=-1), out=now)
    return after


def erase_add_backward(
    memory: Tensor,
    weights: Tensor,
    erasures: Tensor,
    additions: Tensor,
    gradient: Tensor,
    to_weights: Tensor,
    to_erasures: Tensor,
    to_additions: Tensor,
) -> None:
    """From the gradient of what one head left to those of weights, erasures and additions, which are filled.

    The gradient of the memory takes the place of the given one.
    """
    erased = gradient * memory
    torch.bmm(additions, gradient.mT, out=to_weights).baddbmm_(erasures, erased.mT, alpha=-1)
    torch.bmm(weights, erased, out=to_erasures).neg_()
    torch.bmm(weights, gradient, out=to_additions)
    gradient.mul_(torch.addcmul(gradient.new_ones(()), weights.mT, erasures, value=-1, out=erased))
