"""Memories that go step by step: what one step needs depends on what the last one left."""

from abc import abstractmethod
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, stack

from mnemos.memories.base import Memory
from mnemos.tree import reset_rows, where_rows


class SteppedMemory(Memory):
    """A memory whose definition is one step; masks, resets and the passage of time are the same for all.

    `forward` is `prepare` for all steps at once, and then `step` after `step`. A network around the memory
    that feeds its outputs back, `models.memory_augmented.MemoryAugmented`, calls both itself.
    """

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        """What a step needs of its input and the state has no part in: one large product beats many small."""
        return inputs

    @abstractmethod
    def step(self, prepared: Float[Tensor, "batch prepared"], state: Any) -> tuple[Tensor, Any]:
        """One step of every row: the outputs (batch, output), and the state after it."""

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
        outputs, initial = [], self.initial_state(1)
        # Unbound, not indexed: the gradient of an index is as long as the sequence.
        steps = zip(self.prepare(inputs).unbind(1), real.unbind(1), fresh.unbind(1), strict=True)
        for prepared, known, starts in steps:
            state = state if reset is None else reset_rows(state, starts, initial)
            output, after = self.step(prepared, state)
            if mask is None:
                state = after
            else:
                output, state = output.masked_fill(~known.unsqueeze(-1), 0), where_rows(known, after, state)
            outputs.append(output)
        if not outputs:
            return inputs.new_zeros(*inputs.shape[:2], self.output_size), state
        return stack(outputs, dim=1), state
