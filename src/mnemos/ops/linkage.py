"""In which order slots were written: L[i, j] is how far slot i was written next after slot j.

Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", methods, "temporal
memory linkage". A matrix of slots by slots is what makes this memory expensive: written with autograd, a step
keeps several of that size for its backward, and here none but the links themselves.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mnemos.ops.few_rows import few_rows, in_pieces

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
    # A compiler would go through all matrices once for each product; a row of the batch at a time is faster.
    by_itself = torch.compiler.is_compiling() and in_pieces(links)
    return (_opaque_forward if by_itself else _linked_forward)(links, precedence, write_weights, read_weights)


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
    by_itself = torch.compiler.is_compiling() and in_pieces(to_after)
    return (_opaque_backward if by_itself else _linked_backward)(*saved, to_after, to_forward, to_backward)


def _linked_forward(
    links: Tensor, precedence: Tensor, write_weights: Tensor, read_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    after = torch.empty_like(links)
    forward, backward = torch.empty_like(read_weights), torch.empty_like(read_weights)
    rows, columns = write_weights.mT, write_weights
    everything = (links, after, precedence, rows, columns, read_weights, forward, backward)
    for before, now, last, row, column, read, ahead, behind in few_rows(links, everything):
        # Row i moves by w_i towards the slots written last, column j fades by w_j.
        torch.lerp(before, last, row, out=now)
        now.addcmul_(before, column, value=-1)
        now.diagonal(dim1=-2, dim2=-1).zero_()
        torch.bmm(read, now.mT, out=ahead)
        torch.bmm(read, now, out=behind)
    return after, forward, backward


def _linked_backward(
    links: Tensor,
    after: Tensor,
    precedence: Tensor,
    write_weights: Tensor,
    read_weights: Tensor,
    to_after: Tensor,
    to_forward: Tensor,
    to_backward: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    left, right = torch.cat([to_forward, read_weights], dim=1), torch.cat([read_weights, to_backward], dim=1)
    rows_kept = torch.sub(links.new_ones(()), write_weights).mT
    given = (links, after, precedence, write_weights, rows_kept, left.mT, right)
    to_links, to_precedence = torch.empty_like(links), torch.empty_like(precedence)
    to_write, to_read = torch.empty_like(write_weights), torch.empty_like(read_weights)
    outcomes = (to_links, to_precedence, to_write, to_read)
    for some in few_rows(links, (*given, to_after, to_forward, to_backward, *outcomes)):
        before, now, last, written, kept, first, second, to_now, ahead, behind, total, *out = some
        torch.bmm(ahead, now, out=out[2]).baddbmm_(behind, now.mT)
        torch.bmm(first, second, out=total).add_(to_now)  # where to_links will be
        total.diagonal(dim1=-2, dim2=-1).zero_()
        torch.bmm(written, total, out=out[0])
        torch.bmm(last, total.mT, out=out[1])
        changes = total * before
        out[1].sub_(changes.sum(-1).unsqueeze(1)).sub_(changes.sum(-2, keepdim=True))
        total.mul_(torch.sub(kept, written, out=changes))
    return outcomes


_opaque_forward = torch.library.custom_op("mnemos::linked_forward", _linked_forward, mutates_args=())
_opaque_backward = torch.library.custom_op("mnemos::linked_backward", _linked_backward, mutates_args=())


@_opaque_forward.register_fake
def _(links: Tensor, precedence: Tensor, write_weights: Tensor, read_weights: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(torch.empty_like, (links, read_weights, read_weights)))


@_opaque_backward.register_fake
def _(*given: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(torch.empty_like, (given[0], *given[2:5])))


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
