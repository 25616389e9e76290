"""The laws of the state as a thing of its own: snapshot, bounded and pure."""

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnemos.memories.base import AddressableMemory, Memory
from mnemos.snapshot import load, save
from mnemos.testing import elsewhere
from mnemos.testing.trial import (
    BATCH,
    ask,
    check_close,
    check_states,
    law,
    named_tensors,
    past,
    random_inputs,
    random_steps,
)
from mnemos.tree import detach, map_tensors, nbytes, tensors


@law(5, "snapshot")
def snapshot(memory: Memory) -> None:
    """Saved, opened in a new process and continued: bit-identical. A wrong file is an error."""
    kind = type(memory)
    found = getattr(sys.modules.get(kind.__module__), kind.__qualname__, None)
    assert found is kind, f"{kind.__qualname__} must be at the top of an importable module to be opened again"
    state, inputs = past(memory), random_inputs(memory)
    mask = random_steps(memory, 0.8, seed=9)
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        path = Path(name) / "state.memory"
        save(path, memory, state)
        check_states(load(path, memory), state, 0.0, "when loaded in the same process")
        outputs, after = elsewhere.resume(memory, path, inputs, mask)
        expected_outputs, expected = ask(memory, inputs, state, mask=mask)
        check_close(outputs, expected_outputs, 0.0, "outputs when continued in a new process")
        check_states(after, expected, 0.0, "when continued in a new process")
        _check_refusals(memory, state, path)


def _check_refusals(memory: Memory, state: Any, path: Path) -> None:
    """Every wrong file is refused, and never a wrong memory."""
    whole = path.read_bytes()
    wrong = {f"truncated to {length} bytes": whole[:length] for length in range(0, len(whole), 97)}
    for place in range(0, len(whole), 101):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        wrong[f"with a bit of byte {place} flipped"] = bytes(flipped)
    wrong["of something else"] = b"This is not a memory. " * 50
    for what, data in wrong.items():
        path.write_bytes(data)
        _check_refused(path, memory, what)
    save(path, _Foreign(), _Foreign().initial_state(BATCH))
    _check_refused(path, memory, "of another class")
    other = copy.deepcopy(memory)
    changed = {**memory.configuration(), "input_size": memory.input_size + 1}
    other.configuration = lambda: changed  # type: ignore[method-assign]  # stands for other arguments
    save(path, other, state)
    _check_refused(path, memory, "of another configuration")


def _check_refused(path: Path, memory: Memory, what: str) -> None:
    try:
        load(path, memory)
    except ValueError:
        return
    raise AssertionError(f"a file {what} was opened without an error")


class _Nothing(NamedTuple):
    seen: Tensor


class _Foreign(Memory):
    input_size = output_size = 1

    def initial_state(self, batch_size: int) -> _Nothing:
        return _Nothing(self._origin.new_zeros(batch_size, 1))

    def forward(self, inputs: Tensor, state: Any = None, **steps: Any) -> tuple[Tensor, Any]:
        return inputs, state


@law(7, "bounded")
def bounded(memory: Memory) -> None:
    """The state's size does not depend on how much was seen, or only up to a stated capacity."""
    capacity = getattr(memory, "capacity", 0)
    with torch.no_grad():
        states: dict[Any, Any] = {0: memory.initial_state(BATCH)}
        for time in (1, 100 + capacity, 1000 + capacity):
            states[time] = ask(memory, random_inputs(memory, time), states[0])[1]
        states["60 single"] = states[0]
        for step in random_inputs(memory, 60).unbind(1):
            states["60 single"] = ask(memory, step.unsqueeze(1), states["60 single"])[1]
    sizes = {steps: nbytes(state) for steps, state in states.items()}
    settled = {size for steps, size in sizes.items() if not capacity or steps not in (0, 1)}
    assert len(settled) == 1, f"bytes of the state by steps seen: {sizes}, and capacity is {capacity}"
    held = {steps: _storage(states[steps]) for steps in (100 + capacity, 1000 + capacity)}
    assert len(set(held.values())) == 1, (
        f"bytes that the state keeps alive by steps seen: {held}; a tensor of it is a view of something "
        "long, and needs a clone()"
    )
    if capacity and isinstance(memory, AddressableMemory):
        _check_wrap(memory, capacity)


def _storage(state: Any) -> int:
    """Bytes of the storages behind a state: a view keeps all of what it is a view of."""
    storages = {leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes() for leaf in tensors(state)}
    return sum(storages.values())


def _check_wrap(memory: AddressableMemory, capacity: int) -> None:
    """What was written last is found, past capacity as before it."""
    count = 3 * capacity + 1
    _, keys, values, _ = memory.project(random_inputs(memory, count))
    generator = torch.Generator().manual_seed(16)
    keys = torch.randn(keys.shape, generator=generator).to(keys)
    keys = 1000 * torch.nn.functional.normalize(keys, dim=-1)  # so long that one slot gets all the weight
    values = torch.randn(values.shape, generator=generator).to(values)
    state = memory.initial_state(BATCH)
    for step in range(count):
        state = memory.write(state, keys[:, step : step + 1], values[:, step : step + 1])
        reading = memory.read(state, keys[:, step : step + 1])
        when = f"after {step + 1} writes into a capacity of {capacity}"
        check_close(reading.values[:, 0], values[:, step], 1e-3, f"the value just written, read {when}")
        outside = (reading.slots < -1) | (reading.slots >= capacity)
        assert not outside.any(), f"slots outside -1 to {capacity - 1} answered {when}"
    at_once = memory.write(memory.initial_state(BATCH), keys, values)
    check_states(at_once, state, 1e-5, f"after {count} writes in one call, against one at a time")


@law(9, "pure")
def pure(memory: Memory) -> None:
    """Nothing that the caller owns is changed, and evaluation is deterministic."""
    inputs, state, mask = random_inputs(memory), past(memory), random_steps(memory, 0.8, seed=10)
    reset = random_steps(memory, 0.1, seed=11)
    owned = {"inputs": inputs, "mask": mask, "reset": reset, "weights": memory.state_dict(), "state": state}
    before = map_tensors(Tensor.clone, owned)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            memory(inputs, state, mask=mask, reset=reset)
            memory(inputs, state)
            if isinstance(memory, AddressableMemory):
                _use(memory, inputs, state, mask)
        for (name, was), (_, now) in zip(named_tensors(before), named_tensors(owned), strict=True):
            check_close(now, was, 0.0, f"what the caller owns after a call, {name}")
    _check_deterministic(memory, inputs, state)


def _use(memory: AddressableMemory, inputs: Tensor, state: Any, mask: Tensor) -> None:
    queries, keys, values, gates = memory.project(inputs)
    memory.touch(state, memory.read(state, queries))
    memory.write(state, keys, values, mask=mask, **gates)


def _check_deterministic(memory: Memory, inputs: Tensor, state: Any) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append((memory(inputs), memory(inputs, state), memory.initial_state(BATCH)))
    results.append((memory(inputs, memory.initial_state(BATCH)), results[0][1], results[0][2]))
    unseeded, again, explicit = detach(results)
    check_states(
        again, unseeded, 0.0, "in evaluation with another random seed (no state, a state, a new state)"
    )
    check_states(explicit, unseeded, 0.0, "with `initial_state` given, against None")
