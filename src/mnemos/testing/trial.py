"""Runs a memory and compares two runs: the language in which the laws are written."""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnemos.memories.base import Memory
from mnemos.tree import detach, map_tensors, tensors

BATCH = 4
TIME = 13  # prime, so that no chunk, window or capacity above one divides it
Law = Callable[..., None]


class Run(NamedTuple):
    """What a run gave. Gradients are those of a fixed random projection of the outputs and the state."""

    outputs: Tensor
    state: Any
    gradients: dict[str, Tensor]  # of the inputs, the first state's tensors and every parameter


def law(number: int | None, name: str) -> Callable[[Law], Law]:
    """Marks a function as the test of a law: what it raises says which law, and which memory."""

    def mark(test: Law) -> Law:
        @functools.wraps(test)
        def named(memory: Memory, *arguments: Any) -> None:
            title = f"law {number} ({name})" if number else f"the promise of {name}"
            memory = fresh_copy(memory)
            try:
                test(memory, *arguments)
            except AssertionError as error:
                raise AssertionError(f"{type(memory).__name__} breaks {title}: {error}") from error
            except Exception as error:
                error.add_note(f"This was raised while {type(memory).__name__} was tried on {title}.")
                raise

        return named

    return mark


def fresh_copy(memory: Memory) -> Memory:
    """The same memory, to be changed at will, in evaluation mode and without gradients."""
    memory = copy.deepcopy(memory).eval()
    memory.zero_grad(set_to_none=True)
    return memory


def random_inputs(memory: Memory, time: int = TIME, batch: int = BATCH, seed: int = 0) -> Tensor:
    """Normal inputs, the same for the same arguments."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, memory.input_size, generator=generator).to(memory._origin)


def random_steps(memory: Memory, chance: float, time: int = TIME, seed: int = 0) -> Tensor:
    """A boolean for every row and step, true with the given chance."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(BATCH, time, generator=generator) < chance).to(memory._origin.device)


def past(memory: Memory, batch: int = BATCH, time: int = 5) -> Any:
    """A state that has seen something, another thing in every row."""
    with torch.no_grad():
        return ask(memory, random_inputs(memory, time, batch, seed=99), memory.initial_state(batch))[1]


def ask(memory: Memory, inputs: Tensor, state: Any, **steps: Any) -> tuple[Tensor, Any]:
    """`forward` on a copy of the state, so that a memory which edits it breaks one law and not all."""
    return memory(inputs, map_tensors(Tensor.clone, state), **steps)


def in_pieces(memory: Memory, inputs: Tensor, state: Any, pieces: Sequence[int], **steps: Any) -> Any:
    """`forward` in pieces of the given lengths, the state carried: (outputs, state)."""
    outputs = []
    start = 0
    for length in pieces:
        piece = slice(start, start + length)
        given = {name: None if flags is None else flags[:, piece] for name, flags in steps.items()}
        output, state = memory(inputs[:, piece], state, **given)
        outputs.append(output)
        start += length
    return torch.cat(outputs, dim=1), state


def trial(
    memory: Memory, play: Callable[[Tensor, Any], tuple[Tensor, Any]], inputs: Tensor, state: Any
) -> Run:
    """Calls `play(inputs, copied state)` and differentiates a fixed random projection of its results."""
    inputs = inputs.detach().clone().requires_grad_()
    leaves = map_tensors(
        lambda leaf: leaf.detach().clone().requires_grad_(leaf.is_floating_point()), detach(state)
    )
    outputs, after = play(inputs, map_tensors(Tensor.clone, leaves))
    wanted = {"inputs": inputs, **{n: p for n, p in memory.named_parameters() if p.requires_grad}}
    wanted |= {f"first {n}": leaf for n, leaf in named_tensors(leaves) if leaf.requires_grad}
    projection = random_projection([outputs, *tensors(after)])
    if not projection.requires_grad:
        zeros = {name: torch.zeros_like(leaf) for name, leaf in wanted.items()}
        return Run(outputs.detach(), detach(after), zeros)
    gradients = torch.autograd.grad(
        projection, list(wanted.values()), allow_unused=True, materialize_grads=True
    )
    whole = (gradient.to_dense() for gradient in gradients)  # that of a table may be sparse
    return Run(outputs.detach(), detach(after), dict(zip(wanted, whole, strict=True)))


def random_projection(results: Sequence[Tensor]) -> Tensor:
    """One number that depends on every element of what is differentiable, the same way every time."""
    total = torch.zeros((), dtype=torch.float64, device=results[0].device)
    for position, result in enumerate(results):
        if result.requires_grad:
            generator = torch.Generator().manual_seed(1000 + position)
            weights = torch.randn(result.shape, generator=generator).to(result)
            # An infinity (say, the score of an empty slot) has no say in any gradient.
            total = total + (weights * result).where(result.detach().isfinite(), 0).double().sum()
    return total


def named_tensors(state: Any, name: str = "state") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state with the path by which a user would reach them."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, child in state.items():
            yield from named_tensors(child, f"{name}[{key!r}]")
    elif isinstance(state, tuple | list):
        fields = getattr(state, "_fields", None)
        for position, child in enumerate(state):
            inner = f"{name}.{fields[position]}" if fields else f"{name}[{position}]"
            yield from named_tensors(child, inner)


def tolerance(memory: Memory) -> float:
    """How far two runs may lie apart, relative to the largest number: a chunked form has more room."""
    return 1e-4 if hasattr(memory, "naive") else 1e-5


def check_runs(actual: Run, expected: Run, allowed: float, when: str) -> None:
    """Outputs, state and gradients agree."""
    check_close(actual.outputs, expected.outputs, allowed, f"outputs {when}")
    check_states(actual.state, expected.state, allowed, when)
    for name, gradient in expected.gradients.items():
        check_close(actual.gradients[name], gradient, allowed, f"gradient of {name} {when}")


def check_states(actual: Any, expected: Any, allowed: float, when: str) -> None:
    """Two states have the same tensors; `allowed` 0 means bit for bit."""
    left, right = dict(named_tensors(actual)), dict(named_tensors(expected))
    assert left.keys() == right.keys(), f"the state holds {list(left)} {when}, instead of {list(right)}"
    for name, tensor in right.items():
        check_close(left[name], tensor, allowed, f"{name} {when}")


def check_close(actual: Tensor, expected: Tensor, allowed: float, what: str) -> None:
    """Two tensors agree to `allowed` times the largest number among them (or 1); 0 means bit for bit."""
    kinds = [f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (actual, expected)]
    assert kinds[0] == kinds[1], f"{what}: {kinds[0]} instead of {kinds[1]}"
    if allowed == 0 or not expected.is_floating_point():
        same = torch.equal(_bits(actual), _bits(expected))
        assert same, f"{what}: not equal{_worst(actual, expected)}"
        return
    finite = expected[expected.isfinite()]
    scale = max(1.0, finite.abs().max().item() if finite.numel() else 0.0)
    close = torch.isclose(actual, expected, rtol=0, atol=allowed * scale)
    assert close.all(), f"{what}: apart by more than {allowed * scale:.2g}{_worst(actual, expected)}"


def check_finite(values: Tensor, what: str) -> None:
    """No NaN and no infinity."""
    wrong = int((~values.isfinite()).sum())
    assert not wrong, f"{what}: {wrong} of {values.numel()} numbers are NaN or infinite"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor.new_empty(0)


def _worst(actual: Tensor, expected: Tensor) -> str:
    """Where two tensors differ most, in words."""
    difference = (actual.double() - expected.double()).abs().nan_to_num(torch.inf, torch.inf)
    if not difference.numel():
        return ""
    place = torch.unravel_index(difference.argmax(), difference.shape)
    where = [int(index) for index in place]
    return f", worst at {where}: {actual[place].item():.7g} instead of {expected[place].item():.7g}"
