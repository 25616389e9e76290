"""Titans' third wiring: attention to what a memory has made of the past."""

from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.memories.base import Memory
from mnemos.memories.wiring import PersistentTokens, check_width, set_naive
from mnemos.ops.documents import places


class MemoryAsLayerState(NamedTuple):
    """The states of the two layers."""

    clock: Int[Tensor, " batch"]  # real steps of the document, persistent tokens not counted
    memory: Any
    attention: Any


@final
class MemoryAsLayer(Memory):
    """MAL: a memory, and over it attention in a sliding window.

    Behrouz, Zhong & Mirrokni 2025, "Titans: Learning to Memorize at Test Time", section 4.3:

        x̃ = [P || x]        y = x̃ + M(x̃)        o = SW-Attn(y)

    The sum is the residual connection of section 4.4, which the paper leaves out of its equations: without
    it attention would know of a step only what the memory answers to it, which is nothing at first.

    The persistent tokens are steps for both layers: they leave the window as every step does.

    Args:
        memory: of one width for inputs and outputs.
        attention: any memory of that width, such as a `RotaryAttention`.
        persistent: how many persistent tokens (the paper's N_p).
    """

    def __init__(self, memory: Memory, attention: Memory, persistent: int = 4) -> None:
        super().__init__()
        check_width(memory)
        if attention.input_size != memory.input_size:
            raise ValueError(
                f"attention must take {memory.input_size} numbers, as the memory gives, "
                f"not {attention.input_size}"
            )
        self.input_size, self.output_size = memory.input_size, attention.output_size
        self.memory, self.attention, self.persistent = memory, attention, persistent
        self.tokens = PersistentTokens(persistent, self.input_size)

    @property
    def naive(self) -> bool:
        """Whether both layers take their plain loops."""
        return any(getattr(part, "naive", False) for part in (self.memory, self.attention))

    @naive.setter
    def naive(self, naive: bool) -> None:
        set_naive(naive, self.memory, self.attention)

    def initial_state(self, batch_size: int) -> MemoryAsLayerState:
        return MemoryAsLayerState(
            self._origin.new_zeros(batch_size, dtype=torch.int64),
            self.memory.initial_state(batch_size),
            self.attention.initial_state(batch_size),
        )

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: MemoryAsLayerState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], MemoryAsLayerState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        place = places(state.clock, 0, real, fresh)
        opened = self.tokens.opening(inputs, mask, reset, real & (place.number == 0))
        steps = {"mask": opened.mask, "reset": opened.reset}
        answers, memory = self.memory(opened.inputs, state.memory, **steps)
        seen, attention = self.attention(opened.inputs + answers, state.attention, **steps)
        return seen.index_select(1, opened.steps), MemoryAsLayerState(place.clock, memory, attention)
