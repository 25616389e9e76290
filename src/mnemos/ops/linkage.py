"""In which order slots were written: L[i, j] is how far slot i was written next after slot j.

Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", methods, "temporal
memory linkage". A matrix of slots by slots is what makes this memory expensive: written with autograd, a step
keeps several of that size for its backward, and here none but the links themselves.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6


def precedence_after(
    precedence: Float[Tensor, "batch write_heads slots"],
    write_weights: Float[Tensor, "batch write_heads slots"],
) -> Float[Tensor, "batch write_heads slots"]:
    """p_t = (1 - Σ w_t) p_(t-1) + w_t: how far each slot was the one written last."""
    return torch.addcmul(write_weights, 1 - write_weights.sum(-1, keepdim=True), precedence)


def links_after(
    links: Float[Tensor, "batch write_heads slots slots"],
    precedence: Float[Tensor, "batch write_heads slots"],
    write_weights: Float[Tensor, "batch write_heads slots"],
) -> Float[Tensor, "batch write_heads slots slots"]:
    """L_t[i, j] = (1 - w_t[i] - w_t[j]) L_(t-1)[i, j] + w_t[i] p_(t-1)[j], with L[i, i] = 0."""
    rows, columns = write_weights.unsqueeze(-1), write_weights.unsqueeze(-2)
    after = (1 - rows - columns) * links + rows * precedence.unsqueeze(-2)
    diagonal = torch.eye(links.shape[-1], dtype=torch.bool, device=links.device)
    return after.masked_fill(diagonal, 0)


def followed(
    links: Float[Tensor, "batch write_heads slots slots"],
    read_weights: Float[Tensor, "batch read_heads slots"],
) -> tuple[
    Float[Tensor, "batch write_heads read_heads slots"], Float[Tensor, "batch write_heads read_heads slots"]
]:
    """f = L w and b = Lᵀ w: from where each head read last, to what was written after it and before it."""
    read = read_weights.unsqueeze(1)
    return read @ links.mT, read @ links


def linked(
    links: Float[Tensor, "batch write_heads slots slots"],
    precedence: Float[Tensor, "batch write_heads slots"],
    write_weights: Float[Tensor, "batch write_heads slots"],
    read_weights: Float[Tensor, "batch read_heads slots"],
) -> tuple[
    Float[Tensor, "batch write_heads slots slots"],
    Float[Tensor, "batch write_heads read_heads slots"],
    Float[Tensor, "batch write_heads read_heads slots"],
]:
    """`links_after` and what is `followed` on them: (L_t, f_t, b_t).

    The backward is written by hand and keeps nothing of the size of L but L_(t-1), which is the state of the
    step before, and L_t, which is that of this one.
    """
    return _Linked.apply(links, precedence, write_weights, read_weights)


def linked_naive(
    links: Float[Tensor, "batch write_heads slots slots"],
    precedence: Float[Tensor, "batch write_heads slots"],
    write_weights: Float[Tensor, "batch write_heads slots"],
    read_weights: Float[Tensor, "batch read_heads slots"],
) -> tuple[
    Float[Tensor, "batch write_heads slots slots"],
    Float[Tensor, "batch write_heads read_heads slots"],
    Float[Tensor, "batch write_heads read_heads slots"],
]:
    """The same, as it is written."""
    after = links_after(links, precedence, write_weights)
    return after, *followed(after, read_weights)


def sharpened(
    weights: Float[Tensor, "*rows slots"], sharpness: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows slots"]:
    """w_i^s / Σ_j w_j^s, times Σ_j w_j: a blurred link is told from its neighbours again.

    Csordas & Schmidhuber 2019, section 3.3, who scale to a sum of one. Here the sum stays what it was, so
    that a sharpness of 1 changes nothing and a slot without links still leads nowhere.

    Args:
        sharpness: s; all on the largest weight as it grows without bound.
    """
    return (sharpness.unsqueeze(-1) * (weights + EPSILON).log()).softmax(-1) * weights.sum(-1, keepdim=True)


def linked_forward(
    links: Tensor, precedence: Tensor, write_weights: Tensor, read_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`linked` without autograd, for matrices (batch, slots, slots) and weights (batch, heads, slots)."""
    after = torch.empty_like(links)
    forward, backward = torch.empty_like(read_weights), torch.empty_like(read_weights)
    rows, columns = write_weights.mT, write_weights
    everything = (links, after, precedence, rows, columns, read_weights, forward, backward)
    for before, now, last, row, column, read, ahead, behind in _few_at_a_time(links, everything):
        # Row i moves by w_i towards the slots written last, column j fades by w_j.
        torch.lerp(before, last, row, out=now)
        now.addcmul_(before, column, value=-1)
        now.diagonal(dim1=-2, dim2=-1).zero_()
        torch.bmm(read, now.mT, out=ahead)
        torch.bmm(read, now, out=behind)
    return after, forward, backward


def linked_backward(
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    to_after: Tensor,
    to_forward: Tensor,
    to_backward: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From the gradients of what `linked_forward` gave to those of its arguments.

    Args:
        saved: the links before and after, precedence, write weights, read weights.
    """
    links, _, precedence, write_weights, read_weights = saved
    left, right = torch.cat([to_forward, read_weights], dim=1), torch.cat([read_weights, to_backward], dim=1)
    to_links, to_read = torch.empty_like(links), torch.empty_like(read_weights)
    to_precedence, to_write = torch.empty_like(precedence), torch.empty_like(write_weights)
    ones = torch.ones_like(precedence)
    outcomes = (to_links, to_precedence, to_write, to_read)
    everything = (*saved, 1 - write_weights.mT, left.mT, right, to_after, to_forward, to_backward, *outcomes)
    for some in _few_at_a_time(links, (*everything, ones)):
        before, now, last, written, _, kept, first, second, given, ahead, behind, *out, one = some
        torch.bmm(ahead, now, out=out[3]).baddbmm_(behind, now.mT)
        total = torch.baddbmm(given, first, second)
        total.diagonal(dim1=-2, dim2=-1).zero_()
        torch.bmm(written, total, out=out[1])
        changes = total * before
        torch.bmm(last, total.mT, out=out[2]).baddbmm_(one, changes, alpha=-1).baddbmm_(
            one, changes.mT, alpha=-1
        )
        torch.mul(total, kept, out=out[0]).addcmul_(total, written, value=-1)
    return outcomes


def _few_at_a_time(links: Tensor, tensors: Sequence[Tensor]) -> Iterable[tuple[Tensor, ...]]:
    """The tensors in pieces of a few rows of the batch, which a processor's cache holds from pass to pass."""
    matrix = links.shape[-1] ** 2
    if not links.is_cpu or matrix * links.shape[0] <= _CACHED or torch.compiler.is_compiling():
        return [tuple(tensors)]
    return zip(*(x.split(max(1, _CACHED // matrix)) for x in tensors), strict=True)


_CACHED = 2**17  # numbers of one matrix, of which four are in use at once


class _Linked(torch.autograd.Function):
    """Several write heads are as many rows of the batch."""

    @staticmethod
    def forward(
        ctx: Any, links: Tensor, precedence: Tensor, write_weights: Tensor, read_weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads = links.shape[1]
        read = read_weights.repeat_interleave(heads, dim=0) if heads > 1 else read_weights
        weights = (x.flatten(0, 1).unsqueeze(1) for x in (precedence, write_weights))
        given = (links.flatten(0, 1), *weights, read)
        after, *directions = linked_forward(*given)
        ctx.save_for_backward(given[0], after, *given[1:])
        ctx.heads = heads
        return tuple(x.unflatten(0, (-1, heads)) for x in (after, *directions))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.autocast(gradients[0].device.type, enabled=False):
            found = linked_backward(ctx.saved_tensors, *(x.flatten(0, 1) for x in gradients))
        to_links, to_precedence, to_write, to_read = (x.unflatten(0, (-1, ctx.heads)) for x in found)
        return to_links, to_precedence.squeeze(2), to_write.squeeze(2), to_read.sum(1)
