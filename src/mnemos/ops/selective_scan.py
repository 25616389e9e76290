"""The selective scan: a diagonal state space whose step size, input and output depend on the step.

Gu & Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", algorithm 2:

    h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t        and        y_t = C_t h_t

for every channel a state of its own, with one B_t and C_t for all. (The published code, as here, takes Δ B in
place of equation 4's exact integral for B.) The states of all steps are many times as large as the inputs.
Here they exist for a few steps at a time, in a processor's cache, and once more on the way back.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mnemos.ops.scan import linear_scan


def selective_scan_loop(
    inputs: Float[Tensor, "batch time width"],
    steps: Float[Tensor, "batch time width"],
    rates: Float[Tensor, "width slots"],
    writing: Float[Tensor, "batch time slots"],
    reading: Float[Tensor, "batch time slots"],
    state: Float[Tensor, "batch width slots"],
    reset: Bool[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time width"], Float[Tensor, "batch width slots"]]:
    """Step by step: the outputs, and the state after the last step.

    Args:
        inputs: x.
        steps: Δ, at least 0; a step of 0 is the identity on the state.
        rates: A, at most 0.
        writing: B.
        reading: C.
        reset: true where the state is zero before the step.
    """
    fresh = inputs.new_zeros(inputs.shape[:2], dtype=torch.bool) if reset is None else reset
    outputs = []
    given = zip(*(x.unbind(1) for x in (inputs, steps, writing, reading, fresh)), strict=True)
    for x, step, into, out_of, starts in given:
        state = state.masked_fill(starts[:, None, None], 0)
        written = (step * x).unsqueeze(2) * into.unsqueeze(1)
        state = (step.unsqueeze(2) * rates).exp() * state + written
        outputs.append((state @ out_of.unsqueeze(2)).squeeze(2))
    return torch.stack(outputs, dim=1) if outputs else inputs, state


def selective_scan(
    inputs: Float[Tensor, "batch time width"],
    steps: Float[Tensor, "batch time width"],
    rates: Float[Tensor, "width slots"],
    writing: Float[Tensor, "batch time slots"],
    reading: Float[Tensor, "batch time slots"],
    state: Float[Tensor, "batch width slots"],
    reset: Bool[Tensor, "batch time"] | None = None,
) -> tuple[Float[Tensor, "batch time width"], Float[Tensor, "batch width slots"]]:
    """The same as `selective_scan_loop`; it can be differentiated twice, the second time at full size."""
    if not inputs.numel():
        return inputs, state
    kept = None if reset is None else (~reset).to(inputs.dtype)
    with torch.autocast(inputs.device.type, enabled=False):
        outputs, last, _ = _scan(inputs, steps, rates, writing, reading, state, kept)
    return outputs, last


def _at_once(
    kept: Tensor | None,
    inputs: Tensor,
    steps: Tensor,
    rates: Tensor,
    writing: Tensor,
    reading: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same with the states of all steps, for torch to differentiate."""
    decays = (steps.unsqueeze(3) * rates).exp()
    decays = decays if kept is None else decays * kept[:, :, None, None]
    states = linear_scan(decays, (steps * inputs).unsqueeze(3) * writing.unsqueeze(2), state)
    return (states @ reading.unsqueeze(3)).squeeze(3), states[:, -1]


_LONG = 16  # steps of a piece
_HELD = 2**17  # numbers of its states; three tensors of that size are in use at once


def _pieces(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _together(rates: Tensor) -> int:
    """How many rows of the batch are gone through together."""
    return max(1, _HELD // (_LONG * rates.numel()))


def _room(count: int, rows: list[slice], pieces: list[slice], rates: Tensor) -> Tensor:
    """Tensors for the largest piece. They are used again and again: memory that is new is slow."""
    return rates.new_empty(count, rows[0].stop, pieces[0].stop, *rates.shape)


def _run(
    steps: Tensor,
    driven: Tensor,
    rates: Tensor,
    writing: Tensor,
    kept: Tensor | None,
    state: Tensor,
    room: Tensor,
) -> tuple[Tensor, Tensor]:
    """Decays and states of a piece, (batch, time, width, slots), in the first two tensors of the room."""
    decays, states, *_ = room[:, : steps.shape[0], : steps.shape[1]].unbind(0)
    torch.mul(steps.unsqueeze(3), rates, out=decays).exp_()
    if kept is not None:
        decays.mul_(kept[:, :, None, None])
    torch.mul(driven.unsqueeze(3), writing.unsqueeze(2), out=states)
    for a, h in zip(decays.unbind(1), states.unbind(1), strict=True):
        state = h.addcmul_(a, state)
    return decays, states


@torch.library.custom_op("mnemos::selective_scan", mutates_args=())
def _scan(
    inputs: Tensor,
    steps: Tensor,
    rates: Tensor,
    writing: Tensor,
    reading: Tensor,
    state: Tensor,
    kept: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, the state after the last step, and those before each piece: (pieces, batch, width, slots)."""
    batch, time, width = inputs.shape
    rows, pieces = _pieces(batch, _together(rates)), _pieces(time, _LONG)
    outputs, last = inputs.new_empty(batch, time, width), torch.empty_like(state)
    starts = state.new_empty(len(pieces), *state.shape)
    driven, room = steps * inputs, _room(2, rows, pieces, rates)
    for some in rows:
        now = state[some]
        for start, piece in zip(starts, pieces, strict=True):
            start[some] = now  # a copy: the next piece takes the room of this one
            at = (some, piece)
            keep = None if kept is None else kept[at]
            _, states = _run(steps[at], driven[at], rates, writing[at], keep, start[some], room)
            outputs[at] = (states @ reading[at].unsqueeze(3)).squeeze(3)
            now = states[:, -1]
        last[some] = now
    return outputs, last, starts


@torch.library.custom_op("mnemos::selective_scan_backward", mutates_args=())
def _scan_backward(
    inputs: Tensor,
    steps: Tensor,
    rates: Tensor,
    writing: Tensor,
    reading: Tensor,
    kept: Tensor | None,
    starts: Tensor,
    to_outputs: Tensor,
    to_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of inputs, steps, rates, writing, reading and the first state."""
    rows, pieces = _pieces(len(inputs), _together(rates)), _pieces(inputs.shape[1], _LONG)
    driven, room = steps * inputs, _room(3, rows, pieces, rates)
    to_driven, to_steps = inputs.new_empty(inputs.shape), inputs.new_empty(inputs.shape)
    to_writing, to_reading = inputs.new_empty(writing.shape), inputs.new_empty(writing.shape)
    to_rates, to_state = torch.zeros_like(rates), torch.empty_like(to_last)
    for some in rows:
        later = to_last[some].clone()
        for start, piece in reversed(list(zip(starts, pieces, strict=True))):
            at = (some, piece)
            keep = None if kept is None else kept[at]
            decays, states = _run(steps[at], driven[at], rates, writing[at], keep, start[some], room)
            to_reading[at] = (to_outputs[at].unsqueeze(2) @ states).squeeze(2)
            # In place, from the last step on: of a step's state, then of what came into it from before.
            totals = room[2, : states.shape[0], : states.shape[1]]
            torch.mul(to_outputs[at].unsqueeze(3), reading[at].unsqueeze(2), out=totals)
            for total, decay in reversed(list(zip(totals.unbind(1), decays.unbind(1), strict=True))):
                torch.mul(total.add_(later), decay, out=later)
            to_driven[at] = (totals @ writing[at].unsqueeze(3)).squeeze(3)
            to_writing[at] = (driven[at].unsqueeze(2) @ totals).squeeze(2)
            totals.mul_(decays)
            totals[:, 1:].mul_(states[:, :-1])
            totals[:, 0].mul_(start[some])
            to_rates += torch.mul(totals, steps[at].unsqueeze(3), out=decays).sum((0, 1))
            to_steps[at] = totals.mul_(rates).sum(3)
        to_state[some] = later
    return to_driven * steps, to_steps.addcmul_(to_driven, inputs), to_rates, to_writing, to_reading, to_state


@_scan.register_fake
def _(
    inputs: Tensor,
    steps: Tensor,
    rates: Tensor,
    writing: Tensor,
    reading: Tensor,
    state: Tensor,
    kept: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    pieces = -(-inputs.shape[1] // _LONG)
    return inputs.new_empty(inputs.shape), torch.empty_like(state), state.new_empty(pieces, *state.shape)


@_scan_backward.register_fake
def _(
    inputs: Tensor,
    steps: Tensor,
    rates: Tensor,
    writing: Tensor,
    reading: Tensor,
    kept: Tensor | None,
    starts: Tensor,
    to_outputs: Tensor,
    to_last: Tensor,
) -> tuple[Tensor, ...]:
    like = (inputs, inputs, rates, writing, writing, to_last)
    return tuple(x.new_empty(x.shape) for x in like)


def _save(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[2])


def _gradients(ctx: Any, to_outputs: Tensor, to_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *given, kept, starts = ctx.saved_tensors
    if not torch.is_grad_enabled():
        return (*_scan_backward(*given[:5], kept, starts, to_outputs, to_last), None)
    # The gradient is itself to be differentiated: torch makes it.
    wanted = [x for x in given if x.requires_grad]
    results = _at_once(kept, *given)
    found = iter(torch.autograd.grad(results, wanted, (to_outputs, to_last), create_graph=True))
    return (*(next(found) if x.requires_grad else None for x in given), None)


_scan.register_autograd(_gradients, setup_context=_save)
