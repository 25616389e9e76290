"""Reads by softmax of keys and values of which a query sees some, and what joins one read to another."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


def among(
    scores: Float[Tensor, "*queries seen"], visible: Bool[Tensor, "*#queries seen"]
) -> Float[Tensor, "*queries seen"]:
    """Scores of what is visible; finite elsewhere, so that a row of nothing is a number."""
    return scores.masked_fill(~visible, torch.finfo(scores.dtype).min)


def attended(
    scores: Float[Tensor, "batch heads time seen"], values: Float[Tensor, "batch heads seen keys"]
) -> tuple[Float[Tensor, "batch heads time keys"], Float[Tensor, "batch heads time"]]:
    """What is read of the values, and the logarithm of what the softmax of the scores normalises.

    That is what the greatest score has over the logarithm of its share: torch's own logsumexp takes seven
    times as long as the softmax.
    """
    weights = scores.softmax(3)
    greatest = scores.max(3, keepdim=True)
    total = greatest.values - weights.gather(3, greatest.indices).log()
    return weights @ values, total.squeeze(3)


def best_attended(
    scores: Sequence[Float[Tensor, "batch heads time _"]],
    values: Sequence[Float[Tensor, "#batch heads #time _ keys"]],
    top_k: int | None,
) -> tuple[Float[Tensor, "batch heads time keys"], Float[Tensor, "batch heads time"]]:
    """As `attended`, of the `top_k` best of several lots together; None is all of them."""
    together = torch.cat(list(scores), dim=3)
    if top_k is not None and top_k < together.shape[3]:
        best = together.topk(top_k, dim=3, sorted=False).indices
        together = among(together, torch.zeros_like(together, dtype=torch.bool).scatter(3, best, True))
    weights = together.softmax(3).split([lot.shape[3] for lot in scores], dim=3)
    reads = [torch.einsum("bhtf,bhtfk->bhtk", *lot) for lot in zip(weights, values, strict=True)]
    return torch.stack(reads).sum(0), together.logsumexp(3)


def rows_of(
    x: Float[Tensor, "batch heads seen keys"], chosen: Int[Tensor, "batch heads time found"]
) -> Float[Tensor, "batch heads time found keys"]:
    """The chosen steps, as whole rows of one table, which is the cheapest way to gather them."""
    start = torch.arange(x.shape[0] * x.shape[1], device=x.device).mul(x.shape[2]).view(*x.shape[:2], 1, 1)
    return functional.embedding(chosen + start, x.flatten(0, 2))
