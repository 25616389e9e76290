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
from mnemos.ops.content import Asked, Found, asked_backward, asked_forward, content_backward, content_forward
from mnemos.ops.erase_add import erase_add_backward, erase_add_forward
from mnemos.ops.few_rows import few_rows
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
        keys, added = vectors.unflatten(1, (-1, width)).split([heads + 1, 1], dim=1)
        one = usage.new_ones(())  # a number that is no tensor is made one each time, and converted
        strengths = functional.softplus(powers).add_(one)
        gates, modes = gates.sigmoid(), modes.unflatten(1, (3, heads)).softmax(1)
        erased, free, allocating, writing = gates.unsqueeze(1).split([width, heads, 1, 1], dim=-1)
        asked = asked_forward(keys, strengths)
        read_questions, write_question = asked.questions.split([heads, 1], dim=1)

        kept = torch.addcmul(one, free.mT, read_weights, value=EPSILON - 1)
        retained = kept.prod(1)
        usage_after = torch.lerp(write_weights.squeeze(1), one, usage).mul_(retained)
        allocated, order = allocation_forward(usage_after)
        write_found = content_forward(write_question, memory)
        preferred = allocated.unsqueeze(1) - write_found.weights
        chosen = torch.addcmul(write_found.weights, allocating, preferred)
        written = chosen * writing
        memory_after = erase_add_forward(memory, written, erased, added)

        squeezed = links.squeeze(1)
        links_after, forward, backward = linked_forward(squeezed, precedence, written, read_weights)
        read_found = content_forward(read_questions, memory_after)
        candidates = torch.stack([read_found.weights, forward, backward], dim=1)
        reading = (modes.unsqueeze(-1) * candidates).sum(1)
        unwritten = one - written.sum(-1, keepdim=True)
        precedence_after = torch.addcmul(written, unwritten, precedence)

        of_before = (usage, precedence, read_weights, write_weights, squeezed)
        of_after = (usage_after, links_after, reading)
        told = (powers, gates, modes, added)
        ways = (kept, retained, preferred, chosen, written, unwritten, candidates)
        ctx.save_for_backward(*of_before, *of_after, *told, *ways, *order, *asked, *write_found, *read_found)
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
    usage, precedence, read_weights, write_weights, links, usage_after, links_after, reading = saved[:8]
    powers, gates, modes, added, kept, retained, preferred, chosen, written, unwritten, candidates = saved[
        8:19
    ]
    order, asked = Sorted(*saved[19:23]), Asked(*saved[23:27])
    write_found, read_found = Found(*saved[27:32]), Found(*saved[32:])
    memory, memory_after = write_found.memory, read_found.memory
    width, heads = memory.shape[2], reading.shape[1]
    erased, free, allocating, writing = gates.unsqueeze(1).split([width, heads, 1, 1], dim=-1)

    # Reading, from its end to its beginning.
    to_reads = to_reads.unflatten(1, (heads, width))
    to_reading = torch.bmm(to_reads, memory_after.mT).add_(to_reading).unsqueeze(1)
    to_modes = (candidates * to_reading).sum(-1)
    to_modes = torch._softmax_backward_data(to_modes, modes, 1, modes.dtype)
    to_found, to_forward, to_backward = (modes.unsqueeze(-1) * to_reading).unbind(1)
    by_reading = content_backward(read_found, to_found)
    # The links and the precedence.
    to_links, to_precedence, to_weights, to_read_weights = linked_backward(
        (links, links_after, precedence, written, read_weights),
        to_links_after.squeeze(1),
        to_forward,
        to_backward,
    )
    to_unwritten = torch.bmm(to_precedence_after, precedence.mT)
    to_precedence.addcmul_(to_precedence_after, unwritten)
    to_weights.add_(to_written).add_(to_precedence_after).sub_(to_unwritten)
    # What was read, from a memory that was erased and added to.
    left = torch.cat([by_reading.products, reading], dim=1).mT
    right = torch.cat([read_found.questions, to_reads], dim=1)
    to_memory, through_memory = torch.empty_like(memory), torch.empty_like(written)
    to_erased, to_added = torch.empty_like(erased), torch.empty_like(added)
    of_reading = (left, right, memory_after, by_reading.along.mT, to_memory_after)
    of_writing = (memory, written, erased, added)
    for some in few_rows(memory, (*of_reading, *of_writing, to_memory, through_memory, to_erased, to_added)):
        first, second, now, along, given, before, weights, erasures, additions, *out = some
        torch.bmm(first, second, out=out[0]).add_(given).addcmul_(now, along, value=-1)
        erase_add_backward(before, weights, erasures, additions, *out)
    to_weights.add_(through_memory)
    # Writing.
    to_writing = torch.bmm(to_weights, chosen.mT)
    to_chosen = to_weights.mul_(writing)
    to_allocating = torch.bmm(to_chosen, preferred.mT)
    to_allocated = to_chosen * allocating
    by_writing = content_backward(write_found, to_chosen.sub_(to_allocated))
    rows = (to_memory, by_writing.products.mT, write_found.questions, memory, by_writing.along.mT)
    for sums, products, question, before, along in few_rows(memory, rows):
        sums.addcmul_(products, question).addcmul_(before, along, value=-1)
    # The usage.
    to_usage = allocation_backward(order, to_allocated.squeeze(1)).add_(to_usage_after)
    freed = torch.addcdiv(usage.new_zeros(()), (to_usage * usage_after).unsqueeze(1), kept, value=EPSILON - 1)
    to_free = (freed * read_weights).sum(-1).unsqueeze(1)
    to_read_weights.addcmul_(freed, free.mT)
    to_used = to_usage.mul_(retained)
    to_write_weights = torch.addcmul(to_used, to_used, usage, value=-1).unsqueeze(1)
    to_usage = torch.addcmul(to_used, to_used, write_weights.squeeze(1), value=-1)
    # The interface.
    to_questions = torch.cat([by_reading.to_questions, by_writing.to_questions], dim=1)
    to_keys, to_strengths = asked_backward(asked, to_questions)
    to_gates = torch.cat([to_erased, to_free, to_allocating, to_writing], dim=-1).squeeze(1)
    to_interface = torch.cat(
        [
            to_keys.flatten(1),
            to_added.squeeze(1),
            torch.ops.aten.softplus_backward(to_strengths, powers, 1, 20),
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
