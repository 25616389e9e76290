"""One step of the plain DNC as one operation, its backward written by hand.

The equations are those of `content`, `allocation`, `erase_add` and `linkage`, put together as in
`memories.dnc` for one write head. Autograd would take more operations, whose number is what a small memory
costs; and would keep several matrices of the memory's size and of the links' for each step, where this keeps
the states alone.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mnemos.ops.allocation import (
    EPSILON,
    Sorted,
    allocation_backward,
    allocation_forward,
)
from mnemos.ops.content import Found, content_backward, content_forward
from mnemos.ops.erase_add import erase_add_backward, erase_add_forward
from mnemos.ops.linkage import linked_backward, linked_forward


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        interface: Tensor,
        memory: Tensor,
        usage: Tensor,
        links: Tensor,
        precedence: Tensor,
        read_weights: Tensor,
        write_weights: Tensor,
    ) -> tuple[Tensor, ...]:
        width, heads = memory.shape[2], read_weights.shape[1]
        kinds = [(heads + 2) * width, heads + 1, width + heads + 2, 3 * heads]
        vectors, powers, gates, modes = interface.split(kinds, dim=-1)
        vectors = vectors.unflatten(1, (-1, width))
        read_keys, write_key, added = vectors.split([heads, 1, 1], dim=1)
        strengths = functional.softplus(powers).add_(1)
        gates, modes = gates.sigmoid(), modes.unflatten(1, (3, heads)).softmax(1)
        erased, free, allocating, writing = gates.unsqueeze(1).split([width, heads, 1, 1], dim=-1)

        kept = (free.mT * read_weights).mul_(EPSILON - 1).add_(1)
        retained = kept.prod(1)
        used = torch.addcmul(usage, write_weights.squeeze(1), 1 - usage)
        usage_after = used * retained
        allocated, order = allocation_forward(usage_after)
        write_found = content_forward(write_key, strengths[:, heads:], memory)
        share = writing * allocating
        written = ((writing - share) * write_found.weights).addcmul_(share, allocated.unsqueeze(1))
        memory_after = erase_add_forward(memory, written, erased, added)

        squeezed = links.squeeze(1)
        links_after, forward, backward = linked_forward(squeezed, precedence, written, read_weights)
        read_found = content_forward(read_keys, strengths[:, :heads], memory_after)
        candidates = torch.stack([read_found.weights, forward, backward], dim=1)
        reading = (modes.unsqueeze(-1) * candidates).sum(1)
        unwritten = 1 - written.sum(-1, keepdim=True)
        precedence_after = torch.addcmul(written, unwritten, precedence)

        ctx.save_for_backward(
            *(usage, precedence, read_weights, write_weights, squeezed, links_after, memory_after, reading),
            *(
                strengths,
                gates,
                modes,
                added,
                kept,
                retained,
                used,
                allocated,
                written,
                unwritten,
                candidates,
            ),
            *order,
            *write_found,
            *read_found,
        )
        reads = torch.bmm(reading, memory_after).flatten(1)
        after = (usage_after, links_after.unsqueeze(1), precedence_after, reading, written)
        return reads, memory_after, *after

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(gradients[0].device.type, enabled=False):
            return _gradients(ctx.saved_tensors, *gradients)


def _gradients(
    saved: tuple[Tensor, ...],
    to_reads: Tensor,
    to_memory_after: Tensor,
    to_usage_after: Tensor,
    to_links_after: Tensor,
    to_precedence_after: Tensor,
    to_reading: Tensor,
    to_written: Tensor,
) -> tuple[Tensor, ...]:
    """From the gradients of what a step gave to those of its interface and of the state before it."""
    usage, precedence, read_weights, write_weights, links, links_after, memory_after, reading = saved[:8]
    strengths, gates, modes, added, kept, retained, used, allocated, written, unwritten, candidates = saved[
        8:19
    ]
    order, write_found, read_found = Sorted(*saved[19:23]), Found(*saved[23:30]), Found(*saved[30:])
    width, heads = memory_after.shape[2], reading.shape[1]
    erased, free, allocating, writing = gates.unsqueeze(1).split([width, heads, 1, 1], dim=-1)

    # Reading, from its end to its beginning.
    to_reads = to_reads.unflatten(1, (heads, width))
    to_reading = torch.baddbmm(to_reading, to_reads, memory_after.mT).unsqueeze(1)
    to_modes = (candidates * to_reading).sum(-1)
    to_modes = torch._softmax_backward_data(to_modes, modes, 1, modes.dtype)
    to_found, to_forward, to_backward = (modes.unsqueeze(-1) * to_reading).unbind(1)
    to_read_keys, to_read_strengths, to_memory = content_backward(read_found, to_found)
    to_memory = to_memory.add_(to_memory_after).baddbmm_(reading.mT, to_reads)
    # The links and the precedence.
    to_links, to_precedence, through_links, to_read_weights = linked_backward(
        (links, links_after, precedence, written, read_weights),
        to_links_after.squeeze(1),
        to_forward,
        to_backward,
    )
    to_unwritten = (to_precedence_after * precedence).sum(-1, keepdim=True)
    to_precedence = to_precedence.addcmul_(to_precedence_after, unwritten)
    to_written = (through_links + to_written).add_(to_precedence_after).sub_(to_unwritten)
    # Writing.
    memory = write_found.memory
    to_memory, through_memory, to_erased, to_added = erase_add_backward(
        memory, written, erased, added, to_memory
    )
    to_written = to_written.add_(through_memory)
    by_content = (to_written * write_found.weights).sum(-1, keepdim=True)
    by_allocation = (to_written * allocated.unsqueeze(1)).sum(-1, keepdim=True)
    to_allocating = (by_allocation - by_content) * writing
    to_writing = torch.lerp(by_content, by_allocation, allocating)
    share = writing * allocating
    to_write_key, to_write_strength, through_content = content_backward(
        write_found, to_written * (writing - share)
    )
    to_memory = to_memory.add_(through_content)
    # The usage.
    to_usage = to_usage_after + allocation_backward(order, (to_written * share).squeeze(1))
    to_kept = (to_usage * used * retained).unsqueeze(1).div(kept).mul_(EPSILON - 1)
    to_free = (to_kept * read_weights).sum(-1).unsqueeze(1)
    to_read_weights = to_read_weights.addcmul_(to_kept, free.mT)
    to_used = to_usage.mul_(retained)
    to_write_weights = (to_used * (1 - usage)).unsqueeze(1)
    to_usage = torch.addcmul(to_used, to_used, write_weights.squeeze(1), value=-1)
    # The interface.
    to_gates = torch.cat([to_erased, to_free, to_allocating, to_writing], dim=-1).squeeze(1)
    to_strengths = torch.cat([to_read_strengths, to_write_strength], dim=1)
    to_interface = torch.cat(
        [
            *(x.flatten(1) for x in (to_read_keys, to_write_key, to_added)),
            to_strengths * -torch.expm1(1 - strengths),
            torch.ops.aten.sigmoid_backward(to_gates, gates),
            to_modes.flatten(1),
        ],
        dim=1,
    )
    to_state = (to_usage, to_links.unsqueeze(1), to_precedence, to_read_weights, to_write_weights)
    return to_interface, to_memory, *to_state


def dnc_step(
    interface: Tensor, state: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """The reads (batch, read_heads * width) and the six tensors of the state after the step.

    Args:
        interface: ξ (batch, interface) as the controller gave it, before it is brought into its range.
        state: memory, usage, links, precedence, read weights, write weights, with one write head.
    """
    return _Step.apply(interface, *state)
