"""Sparse access: reading the few most similar slots, writing to them or to the least recently accessed.

Rae et al. 2016, "Scaling Memory-Augmented Neural Networks with Sparse Reads and Writes", section 3. Which
slots are nearest, and which is the least recently accessed, are choices and have no gradient.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.ops.delta_rule import unit


def nearest_slots(
    memory: Float[Tensor, "batch slots width"], queries: Float[Tensor, "batch heads width"], count: int
) -> Int[Tensor, "batch heads found"]:
    """The `count` slots of the greatest cosine, best first; empty slots come last, in no order."""
    with torch.no_grad():
        scores = unit(queries) @ unit(memory).mT
        empty = (memory == 0).all(-1).unsqueeze(1)
        return scores.masked_fill(empty, -torch.inf).topk(count, dim=-1).indices


def slot_weights(
    queries: Float[Tensor, "batch heads width"],
    strengths: Float[Tensor, "batch heads"],
    contents: Float[Tensor, "batch heads found width"],
) -> Float[Tensor, "batch heads found"]:
    """The softmax of β times the cosine over the slots found (eq. 2 and 4); an empty slot has weight 0."""
    filled = (contents != 0).any(-1)
    cosines = (unit(contents) @ unit(queries).unsqueeze(-1)).squeeze(-1)
    scores = (strengths.unsqueeze(-1) * cosines).masked_fill(~filled, torch.finfo(cosines.dtype).min)
    return scores.softmax(-1) * filled


def least_recent_slots(last_access: Int[Tensor, "batch slots"], count: int) -> Int[Tensor, "batch count"]:
    """The slot that was accessed longest ago, and the next ones; with more than all they begin again."""
    slots = last_access.shape[1]
    order = last_access.topk(min(count, slots), dim=1, largest=False).indices
    return order[:, torch.arange(count, device=order.device) % slots]


def erase_and_add(
    memory: Float[Tensor, "batch slots width"],
    erased: Int[Tensor, "batch some"],
    slots: Int[Tensor, "batch written"],
    changes: Float[Tensor, "batch written width"],
) -> Float[Tensor, "batch slots width"]:
    """(1 - R) M + A (eq. 3) for whole slots: those of `erased` are emptied, then `changes` are added."""
    emptied, written = (x.unsqueeze(-1).expand(-1, -1, memory.shape[2]) for x in (erased, slots))
    return memory.scatter(1, emptied, 0).scatter_add(1, written, changes)
