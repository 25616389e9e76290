"""Least recently used access: which slots were used least, and how use fades.

Santoro et al. 2016, "Meta-Learning with Memory-Augmented Neural Networks", section 3.2. Which slot is the
least used is a choice and has no gradient.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def faded_usage(
    usage: Float[Tensor, "batch slots"],
    read_weights: Float[Tensor, "batch heads slots"],
    write_weights: Float[Tensor, "batch heads slots"],
    decay: float,
) -> Float[Tensor, "batch slots"]:
    """w^u ← γ w^u + Σ w^r + Σ w^w: what was read or written of late."""
    return decay * usage + (read_weights + write_weights).sum(1)


def least_used_weights(usage: Float[Tensor, "batch slots"], count: int) -> Float[Tensor, "batch count slots"]:
    """w^lu, one-hot: the least used slot, the one after it, and so on, the first of equals first.

    The paper gives all of these slots at once to every head, and so every head would write the same slots.
    Here each comes by itself, for a head of its own. With more heads than slots they begin again.
    """
    slots = usage.shape[1]
    order = usage.detach().sort(dim=1, stable=True).indices
    chosen = order[:, torch.arange(count, device=usage.device) % slots]
    return functional.one_hot(chosen, slots).to(usage)
