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


class Asked(NamedTuple):
    """Keys as they are compared with slots; any number of them, of all heads at once."""

    questions: Tensor  # β k / |k|
    directions: Tensor  # k / |k|
    lengths: Tensor  # |k|, at least `SHORTEST`
    strengths: Tensor  # β, with an axis for the width


def asked_forward(keys: Tensor, strengths: Tensor) -> Asked:
    """Keys (batch, heads, width) brought to the length of their strengths, without autograd."""
    lengths = torch.linalg.vector_norm(keys, dim=-1, keepdim=True).clamp_min_(SHORTEST)
    directions, strengths = keys / lengths, strengths.unsqueeze(-1)
    return Asked(directions * strengths, directions, lengths, strengths)


def asked_backward(asked: Asked, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradient of the questions, which is overwritten, to those of keys and strengths."""
    _, directions, lengths, strengths = asked
    to_strengths = (gradient * directions).sum(-1, keepdim=True)
    # A change along a key does not turn it; one that is too short has no unit length to keep.
    along = torch.ops.aten.threshold_backward(to_strengths, lengths, SHORTEST)
    to_keys = gradient.addcmul_(directions, along, value=-1).mul_(strengths / lengths)
    return to_keys, to_strengths.squeeze(-1)


class Found(NamedTuple):
    """What the backward of content addressing needs: the memory, and nothing else of its size."""

    weights: Tensor
    scores: Tensor  # β cos(k, M_i)
    questions: Tensor
    slot_lengths: Tensor  # |M_i|, at least `SHORTEST`
    memory: Tensor


def content_forward(questions: Tensor, memory: Tensor) -> Found:
    """`content_weights` without autograd, for tensors of three axes."""
    slot_lengths = torch.linalg.vector_norm(memory, dim=-1).clamp_min_(SHORTEST).unsqueeze(-2)
    scores = torch.bmm(questions, memory.mT).div_(slot_lengths)
    return Found(scores.softmax(-1), scores, questions, slot_lengths, memory)


class Shares(NamedTuple):
    """What reaches the questions, and what reaches the memory: productsᵀ questions - memory * along."""

    to_questions: Tensor
    products: Tensor  # (batch, heads, slots)
    along: Tensor  # (batch, 1, slots)


def content_backward(found: Found, gradient: Tensor) -> Shares:
    """From the gradient of the weights to those of questions and memory."""
    weights, scores, _, slot_lengths, memory = found
    products = torch._softmax_backward_data(gradient, weights, -1, weights.dtype).div_(slot_lengths)
    along = (products * scores).sum(-2, keepdim=True)
    along = torch.ops.aten.threshold_backward(along, slot_lengths, SHORTEST).div_(slot_lengths)
    return Shares(torch.bmm(products, memory), products, along)


class _ContentWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Tensor, strengths: Tensor, memory: Tensor) -> Tensor:
        asked = asked_forward(keys, strengths)
        found = content_forward(asked.questions, memory)
        ctx.save_for_backward(*asked, *found)
        return found.weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        asked, found = Asked(*ctx.saved_tensors[:4]), Found(*ctx.saved_tensors[4:])
        with torch.autocast(gradient.device.type, enabled=False):
            shares = content_backward(found, gradient)
            to_memory = torch.bmm(shares.products.mT, asked.questions)
            to_memory = to_memory.addcmul_(found.memory, shares.along.mT, value=-1)
            return *asked_backward(asked, shares.to_questions), to_memory
