"""The laws of sequences: split, mask, reset, rows and twin."""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mnemos.memories.base import Memory
from mnemos.testing.trial import (
    BATCH,
    TIME,
    ask,
    check_close,
    check_runs,
    check_states,
    in_pieces,
    law,
    past,
    random_inputs,
    random_steps,
    tolerance,
    trial,
)
from mnemos.tree import concatenate_rows, map_tensors, repeat_rows, select_rows


@law(1, "split")
def split(memory: Memory) -> None:
    """Any number of pieces of any length, none included, give what the whole gives.

    Every place of a cut is tried by its values. Gradients, which cost three times as much, are compared where
    a state passes through many cuts, and where it passes through one.
    """
    inputs, state = random_inputs(memory), past(memory)
    cuts = [(n, TIME - n) for n in range(TIME + 1)]
    ways: list[tuple[int, ...]] = [(1,) * TIME, (0, 3, 0, 1, 5, 0, 4), (6, 7)]
    flags = {"mask": random_steps(memory, 0.7), "reset": random_steps(memory, 0.2, seed=1)}
    for steps in ({}, flags):
        with_flags = " and with mask and reset" if steps else ""
        whole = trial(memory, partial(in_pieces, memory, pieces=[TIME], **steps), inputs, state)
        for pieces in ways:
            parts = trial(memory, partial(in_pieces, memory, pieces=pieces, **steps), inputs, state)
            check_runs(parts, whole, tolerance(memory), f"in pieces of {pieces}{with_flags}")
        for pieces in cuts:
            with torch.no_grad():
                owned = map_tensors(Tensor.clone, state)
                outputs, after = in_pieces(memory, inputs, owned, pieces, **steps)
            when = f"in pieces of {pieces}{with_flags}"
            check_close(outputs, whole.outputs, tolerance(memory), f"outputs {when}")
            check_states(after, whole.state, tolerance(memory), when)


@law(2, "mask")
def mask(memory: Memory) -> None:
    """A masked step is the identity on the state, whatever its input, and its output is zero."""
    state = past(memory)
    kinds = {"padding and holes": _padding(), "random steps": random_steps(memory, 0.5, seed=2)}
    for kind, real in kinds.items():
        real = real.to(memory._origin.device)
        for garbage in (1e4, torch.nan):
            inputs = random_inputs(memory).where(real.unsqueeze(-1), garbage)
            when = f"with {kind} masked and inputs of {garbage:g} there"
            masked = trial(memory, partial(memory, mask=real), inputs, state)
            alone = trial(memory, partial(_real_steps_only, memory, real=real), inputs, state)
            check_runs(masked, alone, tolerance(memory), when)
            assert not masked.outputs[~real].any(), f"outputs at masked steps are not zero {when}"
            gradient = masked.gradients["inputs"][~real]
            assert not gradient.any(), f"the gradient of masked inputs is not zero {when}"
    _, after = ask(memory, random_inputs(memory), state, mask=torch.zeros_like(real))
    check_states(after, state, 0.0, "after masked steps only")
    unmasked, everything = ask(memory, random_inputs(memory), state), torch.ones_like(real)
    outputs, after = ask(memory, random_inputs(memory), state, mask=everything)
    check_close(outputs, unmasked[0], tolerance(memory), "outputs with a mask that is true throughout")
    check_states(after, unmasked[1], tolerance(memory), "with a mask that is true throughout")


def _padding() -> Tensor:
    """Left padding, right padding, holes, and a row without one real step."""
    real = torch.ones(BATCH, TIME, dtype=torch.bool)
    real[0, :4] = False
    real[1, -5:] = False
    real[2, [0, 3, 4, 7, TIME - 1]] = False
    real[3] = False
    return real


def _real_steps_only(memory: Memory, inputs: Tensor, state: Any, real: Tensor) -> tuple[Tensor, Any]:
    """Every row by itself and shortened to its real steps: what a mask must amount to."""
    outputs, states = [], []
    for row in range(BATCH):
        places = real[row].nonzero().squeeze(1)
        index = torch.tensor([row], device=inputs.device)
        output, after = memory(inputs[row, places].unsqueeze(0), select_rows(state, index))
        outputs.append(output.new_zeros(1, TIME, memory.output_size).index_copy(1, places, output))
        states.append(after)
    return torch.cat(outputs), concatenate_rows(states)


@law(3, "reset")
def reset(memory: Memory) -> None:
    """A reset inside a sequence is the end of one and the beginning of the next."""
    inputs, state = random_inputs(memory), past(memory)
    planned = torch.zeros(BATCH, TIME, dtype=torch.bool)
    planned[0, 0] = planned[1, TIME // 2] = planned[1, TIME - 1] = True
    planned[2, 3:6] = True
    for kind, fresh in (("planned", planned), ("random", random_steps(memory, 0.3, seed=3))):
        fresh = fresh.to(memory._origin.device)
        for real in (None, random_steps(memory, 0.6, seed=4)):
            packed = trial(memory, partial(memory, mask=real, reset=fresh), inputs, state)
            apart = trial(memory, partial(_separately, memory, real=real, fresh=fresh), inputs, state)
            masked = " (some at masked steps)" if real is not None else ""
            check_runs(packed, apart, tolerance(memory), f"with {kind} resets{masked}")


def _separately(
    memory: Memory, inputs: Tensor, state: Any, real: Tensor | None, fresh: Tensor
) -> tuple[Tensor, Any]:
    """Every row by itself, and every stretch between its resets from a new state."""
    outputs, states = [], []
    for row in range(BATCH):
        after = select_rows(state, torch.tensor([row], device=inputs.device))
        starts = fresh[row].nonzero().squeeze(1).tolist()
        stretches = zip([0, *starts], [*starts, TIME], strict=True)
        output = []
        for number, (start, end) in enumerate(stretches):
            after = memory.initial_state(1) if number else after
            known = None if real is None else real[row : row + 1, start:end]
            found, after = memory(inputs[row : row + 1, start:end], after, mask=known)
            output.append(found)
        outputs.append(torch.cat(output, dim=1))
        states.append(after)
    return torch.cat(outputs), concatenate_rows(states)


@law(4, "rows")
def rows(memory: Memory) -> None:
    """Rows do not mix; picking rows of the state is the same as having run those rows."""
    inputs, state = random_inputs(memory), past(memory)
    flags = {"mask": random_steps(memory, 0.8, seed=5), "reset": random_steps(memory, 0.1, seed=6)}
    whole = ask(memory, inputs, state, **flags)
    for picked in ([2, 0, 3, 1], [1], [3, 3, 0, 3, 1, 2]):
        index = torch.tensor(picked, device=inputs.device)
        chosen = {name: steps[index] for name, steps in flags.items()}
        outputs, after = memory(inputs[index], select_rows(state, index), **chosen)
        when = f"of rows {picked}"
        check_close(outputs, whole[0][index], tolerance(memory), f"outputs {when}")
        check_states(after, select_rows(whole[1], index), tolerance(memory), when)
    beams = memory(inputs.repeat_interleave(2, dim=0), repeat_rows(state, 2))[0]
    alone = ask(memory, inputs, state)[0].repeat_interleave(2, dim=0)
    check_close(beams, alone, tolerance(memory), "outputs of rows repeated side by side")
    for training in (False, True):
        _check_row_alone(memory.train(training), inputs, state)
    memory.eval()
    try:
        memory(inputs[:-1], state)
    except ValueError:
        return
    raise AssertionError(f"a state of {BATCH} rows was taken for {BATCH - 1} rows of inputs: no ValueError")


def _check_row_alone(memory: Memory, inputs: Tensor, state: Any) -> None:
    """What row 0 gives does not depend on the other rows, dropout and all."""
    outputs = []
    for others in (inputs, 7 - 3 * inputs):
        torch.manual_seed(0)
        mixed = torch.cat([inputs[:1], others[1:]])
        outputs.append(ask(memory, mixed, state)[0][:1])
    mode = "training" if memory.training else "evaluation"
    check_close(outputs[1], outputs[0], tolerance(memory), f"outputs of row 0 when others change in {mode}")


@law(10, "twin")
def twin(memory: Memory) -> None:
    """A fast path agrees with the plain loop, and whoever has one has declared it."""
    if not hasattr(memory, "naive"):
        _check_plain(memory)
        return
    assert not memory.naive, "`naive` must be False from the start"
    loop = copy.deepcopy(memory)
    loop.naive = True
    assert _operations(loop, 33) != _operations(memory, 33), "`naive = True` runs the same path as False"
    state = past(memory)
    for time in (1, 7, 33):
        inputs = random_inputs(memory, time)
        flags = {
            "mask": random_steps(memory, 0.8, time, seed=7),
            "reset": random_steps(memory, 0.1, time, seed=8),
        }
        for steps in ({}, flags):
            fast = trial(memory, partial(memory, **steps), inputs, state)
            slow = trial(loop, partial(loop, **steps), inputs, state)
            with_flags = ", mask and reset" if steps else ""
            check_runs(fast, slow, 1e-4, f"with naive False against True, {time} steps{with_flags}")


def _check_plain(memory: Memory) -> None:
    """A loop does something for every step; what does not is a fast path, and has a chunk or a kernel."""
    chunks = [name for name in memory.configuration() if "chunk" in name or "block" in name]
    more = _operations(memory, 48) - _operations(memory, 32)
    advice = "that is a fast path: give the memory an attribute `naive` (see Memory) that runs the loop"
    assert not chunks, f"it has an argument {chunks[0]}; {advice}"
    assert more >= 16, f"16 more steps take only {more} more operations; {advice}"


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def _operations(memory: Memory, time: int) -> int:
    with torch.no_grad(), _Count() as count:
        memory(random_inputs(memory, time), memory.initial_state(BATCH))
    return count.operations
