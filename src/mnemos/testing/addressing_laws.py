"""What a directly addressable memory promises beside the eleven laws."""

import torch
from torch import Tensor

from mnemos.memories.base import AddressableMemory
from mnemos.testing.trial import (
    BATCH,
    TIME,
    ask,
    check_close,
    check_states,
    law,
    past,
    random_inputs,
    random_steps,
    tolerance,
)


@law(None, "addressing")
def addressing(memory: AddressableMemory) -> None:
    """`forward` is read, then write; nothing written is nothing changed; an empty memory answers."""
    inputs, start = random_inputs(memory), past(memory)
    outputs, after = ask(memory, inputs, start)
    state, answers = start, []
    for step in inputs.split(1, dim=1):
        queries, keys, values, gates = memory.project(step)
        reading = memory.read(state, queries)
        answers.append(memory.emit(reading.values))
        state = memory.write(memory.touch(state, reading), keys, values, **gates)
    when = "of project, read, emit, touch and write, step by step, against forward"
    check_close(torch.cat(answers, dim=1), outputs, tolerance(memory), f"outputs {when}")
    check_states(state, after, tolerance(memory), when)
    queries, keys, values, _ = memory.project(inputs)
    _check_written_nothing(memory, start, keys, values)
    _check_order(memory, start, keys, values)
    _check_empty(memory, queries)


def _check_written_nothing(memory: AddressableMemory, state: object, keys: Tensor, values: Tensor) -> None:
    zero, one = keys.new_zeros(BATCH, TIME), keys.new_ones(BATCH, TIME)
    check_states(
        memory.write(state, keys, values, strength=zero), state, 0.0, "after writing with strength 0"
    )
    none = memory.write(state, keys, values, mask=zero.bool())
    check_states(none, state, 0.0, "after writing with a mask that is false throughout")
    real = random_steps(memory, 0.5, seed=15)
    hidden = memory.write(
        state,
        keys.where(real.unsqueeze(-1), torch.nan),
        values.where(real.unsqueeze(-1), torch.nan),
        mask=real,
    )
    by_strength = memory.write(state, keys, values, strength=real.to(keys))
    check_states(hidden, by_strength, tolerance(memory), "written with a mask, against the mask as strength")
    full = memory.write(state, keys, values, strength=one)
    check_states(full, memory.write(state, keys, values), 0.0, "written with strength 1, against None")


def _check_order(memory: AddressableMemory, state: object, keys: Tensor, values: Tensor) -> None:
    whole = memory.write(state, keys, values)
    for pieces in ((1,) * TIME, (0, 5, 8)):
        parts = state
        for some_keys, some_values in zip(keys.split(pieces, 1), values.split(pieces, 1), strict=True):
            parts = memory.write(parts, some_keys, some_values)
        check_states(parts, whole, tolerance(memory), f"written in pieces of {pieces}, against at once")


def _check_empty(memory: AddressableMemory, queries: Tensor) -> None:
    reading = memory.read(memory.initial_state(BATCH), queries)
    assert reading.values.isfinite().all(), "reading an empty memory gives numbers that are not finite"
    assert reading.weights.isfinite().all(), "reading an empty memory gives weights that are not finite"
    assert reading.weights.shape == reading.slots.shape, "a reading's weights and slots differ in shape"
    if hasattr(memory, "capacity"):
        assert (reading.slots == -1).all(), "slots of an empty memory are not -1"
        assert not reading.values.any(), "an empty memory reads as something other than zeros"
