"""The protocol that every memory keeps. Its laws are asserted by `mnemos.testing.MemorySuite`."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mnemos.tree import first_tensor, reset_rows, where_rows


class Reading(NamedTuple):
    """What a memory answered, and from where."""

    values: Float[Tensor, "batch time width"]
    weights: Float[Tensor, "batch time found"]  # how much each slot counted
    slots: Int[Tensor, "batch time found"]  # which slots answered; -1 where fewer were found


class Projection(NamedTuple):
    """What an addressable memory asks and writes for each input."""

    queries: Float[Tensor, "batch time keys"]
    keys: Float[Tensor, "batch time keys"]
    values: Float[Tensor, "batch time width"]
    gates: Mapping[str, Tensor] = MappingProxyType({})  # how a pair is written: further arguments of `write`


class Memory(nn.Module, ABC):
    """A memory: parameters in the module, what is remembered in the state that the caller owns.

    A concrete class is final, and keeps every constructor argument as an attribute of the same name:
    that is its configuration, which a snapshot records. Its state is a `NamedTuple` of tensors, batch
    first, and is never changed in place.

    Two attributes exist only where there is something to say:

    - `naive` (bool): a memory with a fast path has it, False from the start. True makes `forward` take
      the plain loop instead, which is the specification that the fast path is held to.
    - `capacity` (int): the slots of a memory that keeps its records apart. Its state may grow until
      that many steps have been seen, and never after.
    """

    input_size: int
    output_size: int
    naive: bool  # both only where the docstring says
    capacity: int
    _origin: Tensor

    def __init__(self) -> None:
        super().__init__()
        # New states are made from this tensor, so that they follow the module's device and dtype.
        self.register_buffer("_origin", torch.empty(0), persistent=False)

    @abstractmethod
    def initial_state(self, batch_size: int) -> Any:
        """The state that has seen nothing, for `batch_size` independent rows."""

    @abstractmethod
    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: Any = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], Any]:
        """Runs over a stretch of time and returns the outputs and the state after it.

        Args:
            inputs: the stretch; any length, zero included.
            state: where the row stood before; None means `initial_state`.
            mask: true where a step is real. A step that is not is the identity on the state, and its
                output is zero.
            reset: true where a row starts afresh before the step. A reset acts at a masked step too:
                it is a boundary between steps, and a boundary that is lost leaks one document into
                the next.
        """

    def begin(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: Any,
        mask: Bool[Tensor, "batch time"] | None,
        reset: Bool[Tensor, "batch time"] | None,
    ) -> tuple[Any, Bool[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
        """Checks what `forward` was given and fills in what was left out: (state, mask, reset)."""
        if inputs.dim() != 3 or inputs.shape[2] != self.input_size:
            raise ValueError(
                f"inputs must have shape (batch, time, {self.input_size}), not {tuple(inputs.shape)}"
            )
        batch, time = inputs.shape[:2]
        for name, given in (("mask", mask), ("reset", reset)):
            if given is not None and (given.dtype != torch.bool or given.shape != (batch, time)):
                raise ValueError(
                    f"{name} must be boolean of shape ({batch}, {time}), "
                    f"not {given.dtype} of shape {tuple(given.shape)}"
                )
        state = self.initial_state(batch) if state is None else self.check_rows(state, batch)
        real = inputs.new_ones(batch, time, dtype=torch.bool) if mask is None else mask
        fresh = inputs.new_zeros(batch, time, dtype=torch.bool) if reset is None else reset
        return state, real, fresh

    def check_rows(self, state: Any, batch_size: int) -> Any:
        """The state as it is, or an error if it is not one of `batch_size` rows."""
        held = first_tensor(state).shape[0]
        if held != batch_size:
            raise ValueError(
                f"state holds {held} rows, inputs {batch_size}: "
                "mnemos.select_rows picks, repeats or reorders rows"
            )
        return state

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name: what would build this memory again, without its weights."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}


class AddressableMemory(Memory):
    """A memory that can be told and asked directly.

    `forward` reads each input with what was known before it, then writes it. Writes of one call
    happen in the order of time. One step of `forward` is, in public calls:

        queries, keys, values, gates = memory.project(inputs)
        reading = memory.read(state, queries)
        outputs = memory.emit(reading.values)
        state = memory.write(memory.touch(state, reading), keys, values, **gates)

    `project`, `emit` and `touch` are the identity here; a memory with learned projections, or one that
    counts its reads, has its own. So has a memory with a faster `forward` than this one, step by step.
    """

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: Any = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], Any]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = inputs.masked_fill(~real.unsqueeze(-1), 0)  # padding may hold anything, NaN included
        outputs, initial = [], self.initial_state(1)
        for step, known, starts in zip(inputs.unbind(1), real.unbind(1), fresh.unbind(1), strict=True):
            state = state if reset is None else reset_rows(state, starts, initial)
            queries, keys, values, gates = self.project(step.unsqueeze(1))
            reading = self.read(state, queries)
            outputs.append(self.emit(reading.values))
            after = self.write(self.touch(state, reading), keys, values, **gates)
            state = after if mask is None else where_rows(known, after, state)
        if not outputs:
            return inputs.new_zeros(*inputs.shape[:2], self.output_size), state
        return torch.cat(outputs, dim=1).masked_fill(~real.unsqueeze(-1), 0), state

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        """What `forward` asks and writes for each input."""
        return Projection(inputs, inputs, inputs)

    def emit(self, values: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time output"]:
        """The outputs of `forward` for the values that it read."""
        return values

    def touch(self, state: Any, reading: Reading) -> Any:
        """Counts a reading as use of the slots that answered it, for memories whose policy asks."""
        return state

    @abstractmethod
    def write(
        self,
        state: Any,
        keys: Float[Tensor, "batch time keys"],
        values: Float[Tensor, "batch time width"],
        *,
        strength: Float[Tensor, "batch time"] | None = None,
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Any:
        """Writes pairs one after the other and returns the new state.

        Args:
            strength: how strongly each pair is written, 0 (not at all) to 1 for memories that blend,
                any non-negative number for memories that keep slots; None is 1.
            mask: false where a pair is not written at all.
        """

    @abstractmethod
    def read(self, state: Any, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """Answers every query from the state as it stands; nothing is written."""

    def check_given(self, state: Any, **given: tuple[Tensor, int]) -> None:
        """Raises ValueError unless every tensor, given by its argument's name with the width expected of it,
        is (batch, time, width) for as many rows as the state has."""
        for name, (x, width) in given.items():
            if x.dim() != 3 or x.shape[2] != width:
                raise ValueError(f"{name} must have shape (batch, time, {width}), not {tuple(x.shape)}")
            self.check_rows(state, x.shape[0])


def check_sizes(**sizes: int) -> None:
    """Raises ValueError for the first size, of those given by the names of arguments, that is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
