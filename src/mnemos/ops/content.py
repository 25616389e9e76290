"""Finding slots by what they hold: the cosine of a key with every slot, sharpened into weights.

Graves, Wayne & Danihelka 2014, eq. 5 and 6; the same in every memory with heads that came after it.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mnemos.ops.delta_rule import unit

SHORTEST = 1e-3  # below this length `unit` scales to less than one; so do the forms here


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
    """softmax_i(β K(k, M_i)): even at strength 0, all on the most similar slot as it grows without bound.

    Only the lengths of the slots are computed, no copy of the memory at length one, forward or backward.
    """
    by_hand = keys.dim() == 3  # the rows of one batch, as all memories have them
    return (_ContentWeights.apply if by_hand else content_weights_naive)(keys, strengths, memory)


def content_weights_naive(
    keys: Float[Tensor, "*rows heads width"],
    strengths: Float[Tensor, "*rows heads"],
    memory: Float[Tensor, "*rows slots width"],
) -> Float[Tensor, "*rows heads slots"]:
    """The same, as it is written."""
    return (strengths.unsqueeze(-1) * cosine_similarity(keys, memory)).softmax(-1)


def masked_content_weights(
    keys: Float[Tensor, "*rows heads width"],
    strengths: Float[Tensor, "*rows heads"],
    masks: Float[Tensor, "*rows heads width"],
    memory: Float[Tensor, "*rows slots width"],
) -> Float[Tensor, "*rows heads slots"]:
    """softmax_i(β K(k ∘ m, M_i ∘ m)): what a mask hides has no part in the likeness.

    Csordas & Schmidhuber 2019, "Improving Differentiable Neural Computers Through Memory Masking,
    De-allocation, and Link Distribution Sharpness Control", section 3.1. No head has a memory of its own:
    (k ∘ m) · (M_i ∘ m) is (k ∘ m²) · M_i, and |M_i ∘ m|² is m² · M_i².

    Args:
        masks: m from 0 (hidden) to 1 (compared); all ones are `content_weights`.
    """
    seen = masks.square()
    products = (keys * seen) @ memory.mT
    lengths = (seen @ memory.square().mT).clamp_min(SHORTEST**2).rsqrt()
    lengths = lengths * (keys * masks).square().sum(-1, keepdim=True).clamp_min(SHORTEST**2).rsqrt()
    return (strengths.unsqueeze(-1) * products * lengths).softmax(-1)


class Found(NamedTuple):
    """What the backward of content addressing needs: the memory, and nothing else of its size."""

    weights: Tensor
    cosines: Tensor
    directions: Tensor  # keys at length one
    key_lengths: Tensor  # at least `SHORTEST`, like those of the slots
    slot_lengths: Tensor
    strengths: Tensor
    memory: Tensor


def content_forward(keys: Tensor, strengths: Tensor, memory: Tensor) -> Found:
    """`content_weights` without autograd, for tensors of three axes."""
    key_lengths = torch.linalg.vector_norm(keys, dim=-1, keepdim=True).clamp_min_(SHORTEST)
    slot_lengths = torch.linalg.vector_norm(memory, dim=-1).clamp_min_(SHORTEST).unsqueeze(-2)
    directions = keys / key_lengths
    cosines = torch.bmm(directions, memory.mT).div_(slot_lengths)
    weights = (strengths.unsqueeze(-1) * cosines).softmax(-1)
    return Found(weights, cosines, directions, key_lengths, slot_lengths, strengths, memory)


def content_backward(found: Found, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient of the weights to those of keys, strengths and memory."""
    weighted = gradient * found.weights
    to_scores = weighted.addcmul_(found.weights, weighted.sum(-1, keepdim=True), value=-1)
    to_strengths = torch.linalg.vecdot(to_scores, found.cosines)
    to_products = to_scores.mul_(found.strengths.unsqueeze(-1)).div_(found.slot_lengths)
    # A change along a vector does not turn it; one that is too short has no unit length to keep.
    along_key = (found.strengths * to_strengths).unsqueeze(-1) * (found.key_lengths > SHORTEST)
    along_slot = (to_products * found.cosines).sum(-2, keepdim=True).div_(found.slot_lengths)
    along_slot = along_slot * (found.slot_lengths > SHORTEST)
    to_keys = torch.bmm(to_products, found.memory).addcmul_(found.directions, along_key, value=-1)
    to_memory = torch.bmm(to_products.mT, found.directions).addcmul_(found.memory, along_slot.mT, value=-1)
    return to_keys.div_(found.key_lengths), to_strengths, to_memory


class _ContentWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, strengths: Tensor, memory: Tensor) -> Tensor:
        found = content_forward(keys, strengths, memory)
        ctx.save_for_backward(*found)
        return found.weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(gradient.device.type, enabled=False):
            return content_backward(Found(*ctx.saved_tensors), gradient)
