"""Titans' second wiring: a memory beside attention, whose answers gate what attention saw."""

from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.memories.base import Memory
from mnemos.memories.rotary_attention import RotaryAttention, RotaryState
from mnemos.memories.wiring import MemoryGate, PersistentTokens, check_width, set_naive
from mnemos.ops.documents import places


class MemoryAsGateState(NamedTuple):
    """The states of the two branches."""

    clock: Int[Tensor, " batch"]  # real steps of the document
    attention: RotaryState
    memory: Any


@final
class MemoryAsGate(Memory):
    """MAG: a sliding window sees the recent past precisely, beside it a memory knows the rest.

    Behrouz, Zhong & Mirrokni 2025, "Titans: Learning to Memorize at Test Time", section 4.2:

        x̃ = [P || x]        y = SW-Attn*(x̃)        o = y ⊗ M(x̃)

    The persistent tokens P are seen by every step, whatever the window (the star), and are the first that
    the memory is told of a document. The gate is a `MemoryGate`.

    Residual connections, and what stands around a memory in a network, are left to that network; a memory
    may come with its own, such as `models.Mixer`.

    Args:
        memory: of one width for inputs and outputs.
        attention: of the same width; its window is the short-term memory.
        persistent: how many persistent tokens (the paper's N_p).
    """

    def __init__(self, memory: Memory, attention: RotaryAttention, persistent: int = 4) -> None:
        super().__init__()
        check_width(memory)
        if attention.input_size != memory.input_size:
            raise ValueError(
                f"attention must be {memory.input_size} wide, as the memory is, not {attention.input_size}"
            )
        self.input_size = self.output_size = memory.input_size
        self.memory, self.attention, self.persistent = memory, attention, persistent
        self.tokens = PersistentTokens(persistent, self.input_size)
        self.gate = MemoryGate(self.input_size)

    @property
    def naive(self) -> bool:
        """Whether both branches take their plain loops."""
        return self.attention.naive

    @naive.setter
    def naive(self, naive: bool) -> None:
        set_naive(naive, self.memory, self.attention)

    def initial_state(self, batch_size: int) -> MemoryAsGateState:
        return MemoryAsGateState(
            self._origin.new_zeros(batch_size, dtype=torch.int64),
            self.attention.initial_state(batch_size),
            self.memory.initial_state(batch_size),
        )

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: MemoryAsGateState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], MemoryAsGateState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        place = places(state.clock, 0, real, fresh)
        opened = self.tokens.opening(inputs, mask, reset, real & (place.number == 0))
        answers, memory = self.memory(opened.inputs, state.memory, mask=opened.mask, reset=opened.reset)
        seen, attention = self.attention(
            inputs, state.attention, mask=mask, reset=reset, prefix=self.tokens.tokens
        )
        outputs = self.gate(seen, answers.index_select(1, opened.steps))
        outputs = torch.where(real.unsqueeze(2), outputs, 0)
        return outputs, MemoryAsGateState(place.clock, attention, memory)
