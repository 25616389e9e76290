"""The laws of numbers: finite, learns and compiles."""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mnemos.memories.base import AddressableMemory, Memory
from mnemos.memories.memoriser import Memoriser
from mnemos.memories.memory_as_context import MemoryAsContext
from mnemos.memories.online_learner import OnlineLearner
from mnemos.memories.segment_recurrence import SegmentRecurrence
from mnemos.memories.stepped import SteppedMemory
from mnemos.testing.trial import (
    BATCH,
    Run,
    ask,
    check_close,
    check_finite,
    check_runs,
    law,
    named_tensors,
    past,
    random_inputs,
    random_steps,
    tolerance,
    trial,
)
from mnemos.tree import detach, map_tensors, tensors


@law(6, "finite")
def finite(memory: Memory) -> None:
    """Outputs and gradients stay finite where numbers like to break."""
    configuration = memory.configuration()
    kinds = [("", memory, False), ("bfloat16 autocast, ", memory, True)]
    if "slots" in configuration:
        smallest = type(memory)(**{**configuration, "slots": 1}).to(memory._origin).eval()
        kinds.append(("one slot, ", smallest, False))
    for kind, tried, autocast in kinds:
        with torch.autocast(memory._origin.device.type, torch.bfloat16, enabled=autocast):
            _check_hard_inputs(tried, kind)
            if isinstance(tried, AddressableMemory):
                _check_hard_pairs(tried, kind)


def _check_hard_inputs(memory: Memory, kind: str) -> None:
    normal = random_inputs(memory, 8)
    everything = normal.new_ones(normal.shape[:2], dtype=torch.bool)
    row_gone = everything.index_fill(0, torch.tensor([1], device=normal.device), False)
    states = {"a new": memory.initial_state(BATCH), "a used": past(memory)}
    hard = {
        "zero inputs": torch.zeros_like(normal),
        "inputs of 1e4": torch.full_like(normal, 1e4),
        "inputs of about 1e4, both signs": 1e4 * normal,
        "inputs of 1e-20": 1e-20 * normal,
        "the same input throughout": normal[:, :1].expand_as(normal),
        "1e4 after normal inputs": torch.cat([normal[:, :4], 1e4 * normal[:, 4:]], dim=1),
        "one step": normal[:, :1],
        "no step": normal[:, :0],
    }
    for what, inputs in hard.items():
        for start, state in states.items():
            ran = trial(memory, memory, inputs, state)
            _check_run_finite(ran, f"{kind}{what}, {start} state")
    for what, mask in (("a row masked whole", row_gone), ("all masked", ~everything)):
        for start, state in states.items():
            ran = trial(memory, partial(memory, mask=mask), normal, state)
            _check_run_finite(ran, f"{kind}{what}, {start} state")


def _check_run_finite(ran: Run, when: str) -> None:
    check_finite(ran.outputs, f"outputs ({when})")
    for name, tensor in named_tensors(ran.state):
        assert not tensor.isnan().any(), f"{name} holds NaN ({when})"
    for name, gradient in ran.gradients.items():
        check_finite(gradient, f"gradient of {name} ({when})")


def _check_hard_pairs(memory: AddressableMemory, kind: str) -> None:
    """Reads of an empty memory, keys of zero, and both at 1e4."""
    with torch.no_grad():
        _, some_keys, some_values, _ = memory.project(random_inputs(memory, 8))
    for size in (0.0, 1.0, 1e4):
        for start, state in (("empty", memory.initial_state(BATCH)), ("used", past(memory))):

            def play(keys: Tensor, state: Any) -> tuple[Tensor, Any]:
                first = memory.read(state, keys)
                after = memory.write(state, keys, some_values.to(keys))
                second = memory.read(after, keys)
                return torch.cat([first.values, second.values], dim=1), after

            ran = trial(memory, play, size * some_keys.float(), state)
            _check_run_finite(ran, f"{kind}keys times {size:g} read, written and read, {start} memory")


@law(8, "learns")
def learns(memory: Memory) -> None:
    """Every parameter gets a gradient, the right one, and `detach` is all that truncation needs."""
    _check_every_parameter(memory)
    _check_truncation(memory)
    _check_derivatives(memory.double())


def _check_every_parameter(memory: Memory) -> None:
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():  # away from an initial value, such as zero, at which a gradient may vanish
        for parameter in memory.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator).to(parameter))
    silent = {name for name, parameter in memory.named_parameters() if parameter.requires_grad}
    for seed in range(3):
        ran = trial(
            memory,
            lambda x, s: (memory(x, s)[0], ()),
            random_inputs(memory, seed=seed),
            memory.initial_state(BATCH),
        )
        silent -= {name for name, gradient in ran.gradients.items() if gradient.any()}
    assert not silent, f"no gradient from the outputs reaches {sorted(silent)}"


def _check_truncation(memory: Memory) -> None:
    """A segment from a detached state has the gradients that it has from an equal state of no history."""
    first, second = random_inputs(memory, seed=1), random_inputs(memory, seed=2)
    outputs, state = ask(memory, first, memory.initial_state(BATCH))
    if outputs.requires_grad:
        outputs.sum().backward()
    plain = trial(memory, memory, second, map_tensors(Tensor.clone, detach(state)))
    try:
        carried = trial(memory, lambda x, s: memory(x, detach(state)), second, state)
    except RuntimeError as error:
        raise AssertionError(f"a segment after `mnemos.detach` cannot be differentiated: {error}") from error
    for name, gradient in carried.gradients.items():
        if not name.startswith("first "):
            check_close(gradient, plain.gradients[name], 0.0, f"gradient of {name} after `mnemos.detach`")


def _check_derivatives(memory: Memory) -> None:
    """`gradcheck` through two pieces, the state carried between them."""
    inputs = random_inputs(memory, 5, seed=3)[:2].requires_grad_()
    parameters = dict(memory.named_parameters())
    start = past(memory, 2)

    def play(inputs: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        def call(piece: Tensor, state: Any) -> Any:
            given = dict(zip(parameters, map(_Densified.apply, values), strict=True))
            return torch.func.functional_call(memory, given, (piece, state))

        outputs, state = call(inputs[:, :3], start)
        more, state = call(inputs[:, 3:], state)
        results = [outputs, more, *tensors(state)]
        return tuple(result for result in results if result.requires_grad)

    values = [parameter.detach().clone().requires_grad_() for parameter in parameters.values()]
    try:
        torch.autograd.gradcheck(play, (inputs, *values), fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(f"gradcheck through a carried state fails: {error}") from error


class _Densified(torch.autograd.Function):
    """The identity; a sparse gradient, which gradcheck would refuse, goes on as a dense one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].to_dense()


@law(11, "compiles")
def compiles(memory: Memory, backend: str = "inductor") -> None:
    """`torch.compile(fullgraph=True)` gives what the plain call gives, gradients too.

    Inductor (torch 2.13) compares the storages of what a graph computes, and a sparse gradient has none:
    where it stumbles over one, values alone are compared.
    """
    torch.compiler.reset()
    compiled = torch.compile(memory, fullgraph=True, backend=backend)
    # A graph holds every step, chunk or segment of these: a third is as much like the second as a fifth.
    by_steps = SteppedMemory | Memoriser | OnlineLearner | SegmentRecurrence | MemoryAsContext
    time = 3 if isinstance(memory, by_steps) else 5
    inputs, state = random_inputs(memory, time), past(memory)
    flags = {
        "mask": random_steps(memory, 0.7, time, seed=13),
        "reset": random_steps(memory, 0.3, time, seed=14),
    }
    for steps in ({}, flags):
        expected = trial(memory, partial(memory, **steps), inputs, state)
        try:
            with warnings.catch_warnings():  # the tracer's own doings
                warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
                warnings.filterwarnings("ignore", ".*Function'> should not be instantiated")
                warnings.filterwarnings("ignore", ".*torch._prims_common.check. is deprecated", FutureWarning)
                warnings.filterwarnings(
                    "ignore", "Torchinductor does not support code generation for complex"
                )
                actual = trial(memory, partial(compiled, **steps), inputs, state)
        except torch._dynamo.exc.TorchDynamoException as error:
            if "storage of SparseTensorImpl" not in str(error):
                raise AssertionError(f"it does not compile into one graph: {error}") from error
            torch.compiler.reset()
            with torch.no_grad():
                outputs, after = compiled(inputs, map_tensors(Tensor.clone, state), **steps)
            actual = Run(outputs, after, expected.gradients)
        check_runs(actual, expected, tolerance(memory), f"compiled by {backend}")
    torch.compiler.reset()
