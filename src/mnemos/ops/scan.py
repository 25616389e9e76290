"""A linear recurrence over time: h_t = a_t h_{t-1} + b_t, element by element, for any a_t.

The loop is the specification. The scan takes one operation in place for each step, and knows its own
derivative, which is the same recurrence backwards. A scan of logarithmic depth (Martin & Cundy 2018) goes
through memory log T times, which on a processor is slower than the loop, and dividing by cumulative products
of decays ends in 0 / 0 as soon as a product underflows. A masked step has a_t = 1 and b_t = 0; a row
that starts afresh has a_t = 0.
"""

from itertools import pairwise
from math import isqrt
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor


def linear_scan_loop(
    decay: Inexact[Tensor, "batch time *shape"],
    inputs: Inexact[Tensor, "batch time *width"],
    state: Inexact[Tensor, "batch *width"],
) -> Inexact[Tensor, "batch time *width"]:
    """h_1 to h_T, step by step, from a state h_0.

    Args:
        decay: a, of the shape of the inputs or one that is expanded to it.
        inputs: b.
    """
    states = []
    for a, b in zip(decay.unbind(1), inputs.unbind(1), strict=True):
        state = a * state + b
        states.append(state)
    return torch.stack(states, dim=1) if states else inputs


def linear_scan(
    decay: Inexact[Tensor, "batch time *shape"],
    inputs: Inexact[Tensor, "batch time *width"],
    state: Inexact[Tensor, "batch *width"],
) -> Inexact[Tensor, "batch time *width"]:
    """The same as `linear_scan_loop`, for decays of at most 1 in size; it can be differentiated twice."""
    if not inputs.shape[1]:
        return inputs
    batch, time = inputs.shape[:2]
    decay = decay.to(inputs.dtype).expand_as(inputs).reshape(batch, time, -1)
    states: Tensor = _scan(decay, inputs.reshape(batch, time, -1), state.to(inputs.dtype).reshape(batch, -1))
    return states.view_as(inputs)


_WIDE = 2**12  # numbers of a step below which the call takes longer than the work


@torch.library.custom_op("mnemos::linear_scan", mutates_args=())
def _scan(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    """For (batch, time, width); an operator of its own, since a compiler would unroll its loop."""
    time = inputs.shape[1]
    states = inputs.clone(memory_format=torch.contiguous_format)
    length = time if inputs[:, 0].numel() > _WIDE and inputs.is_cpu else isqrt(time)
    blocks, rest = divmod(time, length)
    if blocks > 1:
        state = _scan_blocks(decay[:, : time - rest], states[:, : time - rest], state, length)
        decay, inner = decay[:, time - rest :], states[:, time - rest :]
    else:
        inner = states
    for a, b in zip(decay.unbind(1), inner.unbind(1), strict=True):
        state = b.addcmul_(a, state)
    return states


def _scan_blocks(decay: Tensor, states: Tensor, state: Tensor, length: int) -> Tensor:
    """All blocks of so many steps at once, each from zero, and then what the one before hands over.

    A product of the decays of a block is only multiplied by, so that it may well be zero.
    """
    kept = decay.unflatten(1, (-1, length)).clone(memory_format=torch.contiguous_format)
    states = states.unflatten(1, (-1, length))
    steps = list(zip(kept.unbind(2), states.unbind(2), strict=True))
    for (before, last), (a, b) in pairwise(steps):
        b.addcmul_(a, last)
        a.mul_(before)
    for a, b in zip(kept.unbind(1), states.unbind(1), strict=True):
        b.addcmul_(a, state.unsqueeze(1))
        state = b[:, -1]
    return state


@_scan.register_fake
def _(decay: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    return torch.empty_like(inputs, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    decay, _, state = inputs
    ctx.save_for_backward(decay, state, output)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What h_t does to later steps comes back through a_{t+1}: the recurrence, from the last step on."""
    decay, state, states = ctx.saved_tensors
    decay = decay.conj().resolve_conj()
    later = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], dim=1)
    total = _scan(later.flip(1), gradient.flip(1), torch.zeros_like(state)).flip(1)
    before = torch.cat([state.unsqueeze(1), states[:, :-1]], dim=1)
    return total * before.conj(), total, decay[:, 0] * total[:, 0]


_scan.register_autograd(_gradients, setup_context=_save)
