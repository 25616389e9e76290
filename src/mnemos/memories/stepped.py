"""Memories that go step by step: what one step needs depends on what the last one left."""

from abc import ABC, abstractmethod
from typing import Any, final

from jaxtyping import Bool, Float
from torch import Tensor, nn, stack

from mnemos.memories.base import Memory
from mnemos.tree import reset_rows, where_rows


class Stretch(ABC):
    """A stretch of time that is being run. What happens on the way is its own: only `end` gives a state."""

    @abstractmethod
    def step(
        self,
        prepared: Float[Tensor, "batch prepared"],
        known: Bool[Tensor, " batch"] | None,
        starts: Bool[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch output"]:
        """What one step gives, as `SteppedMemory.step` does; anything finite where it is masked.

        Args:
            known: true where the step is real; None if it is in every row.
            starts: true where a row starts afresh before the step; None if none does.
        """

    @abstractmethod
    def end(self) -> Any:
        """The state after the last step. Nothing follows it."""


class SteppedMemory(Memory):
    """A memory whose definition is one step; masks, resets and the passage of time are the same for all.

    `forward` is `prepare` for all steps at once, then step after step, and `conclude` for all at once. A
    network around the memory that feeds its outputs back, as `models.memory_augmented.MemoryAugmented` does,
    calls all three itself.
    """

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        """What a step needs of its input and the state has no part in: one large product beats many small."""
        return inputs

    @abstractmethod
    def step(self, prepared: Float[Tensor, "batch prepared"], state: Any) -> tuple[Tensor, Any]:
        """One step of every row: what `conclude` makes the outputs of, and the state after it."""

    def conclude(self, given: Float[Tensor, "*shape given"]) -> Float[Tensor, "*shape output"]:
        """The outputs, from what steps gave: what no later step needs, as one large product."""
        return given

    def advance(
        self,
        prepared: Float[Tensor, "batch prepared"],
        state: Any,
        known: Bool[Tensor, " batch"] | None,
        starts: Bool[Tensor, " batch"] | None,
        initial: Any,
    ) -> tuple[Tensor, Any]:
        """`step` where it is known, the identity where it is not, and afresh where it starts."""
        if starts is not None:
            state = reset_rows(state, starts, initial)
        output, after = self.step(prepared, state)
        return output, after if known is None else where_rows(known, after, state)

    def stretch(self, state: Any) -> Stretch | None:
        """Begins a stretch of time at a state, which stays as it is; None means to go state by state.

        A memory whose step would copy what hardly changes gives a stretch here, which copies once and then
        works in place.
        """
        return None

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: Any = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], Any]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        if mask is not None:
            inputs = inputs.masked_fill(~real.unsqueeze(-1), 0)  # padding may hold anything, NaN included
        if not inputs.shape[1]:
            return inputs.new_zeros(*inputs.shape[:2], self.output_size), state
        outputs, initial, stretch = [], self.initial_state(1), self.stretch(state)
        # Unbound, not indexed: the gradient of an index is as long as the sequence.
        steps = zip(self.prepare(inputs).unbind(1), real.unbind(1), fresh.unbind(1), strict=True)
        for prepared, known, starts in steps:
            flags = None if mask is None else known, None if reset is None else starts
            if stretch is None:
                output, state = self.advance(prepared, state, *flags, initial)
            else:
                output = stretch.step(prepared, *flags)
            outputs.append(output)
        concluded = self.conclude(stack(outputs, dim=1))
        if mask is not None:
            concluded = concluded.masked_fill(~real.unsqueeze(-1), 0)
        return concluded, state if stretch is None else stretch.end()


@final
class StateByState(Stretch):
    """The plain way, a new state at every step, beside a memory that goes another."""

    def __init__(self, memory: SteppedMemory, state: Any) -> None:
        self.memory, self.state = memory, state
        self.initial = memory.initial_state(1)

    def step(
        self,
        prepared: Float[Tensor, "batch prepared"],
        known: Bool[Tensor, " batch"] | None,
        starts: Bool[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch output"]:
        output, self.state = self.memory.advance(prepared, self.state, known, starts, self.initial)
        return output

    def end(self) -> Any:
        return self.state


def interface(input_size: int, size: int, beginning: Float[Tensor, " size"] | None = None) -> nn.Linear:
    """The map from a controller to all that the heads of a memory are told.

    It is drawn about twice as far as torch draws: heads that are told nearly nothing all do nearly the same,
    and training takes several times as long to part them.

    Args:
        beginning: what heads are told by a controller that says nothing; zeros where it is None.
    """
    told = nn.Linear(input_size, size)
    nn.init.xavier_uniform_(told.weight, gain=1.4)
    if beginning is None:
        nn.init.zeros_(told.bias)
    else:
        told.bias = nn.Parameter(beginning.clone())
    return told
