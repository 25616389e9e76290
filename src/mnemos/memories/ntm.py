"""The memory of the Neural Turing Machine."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mnemos.memories.base import check_sizes
from mnemos.memories.stepped import SteppedMemory, interface
from mnemos.ops.content import content_weights
from mnemos.ops.erase_add import erase_add, read
from mnemos.ops.location import interpolate, sharpen, shift

BLANK = 1e-6  # what every place of a new memory holds


class NTMState(NamedTuple):
    """What an `NTM` remembers. Weights are not negative and sum to 1 over the slots."""

    memory: Float[Tensor, "batch slots width"]  # M_t
    read_weights: Float[Tensor, "batch heads slots"]  # w_t of the reading heads
    write_weights: Float[Tensor, "batch heads slots"]  # w_t of the writing heads


@final
class NTM(SteppedMemory):
    """A matrix of slots with heads that find them by content and by location.

    Graves, Wayne & Danihelka 2014, "Neural Turing Machines", section 3; around it, as controller,
    `models.memory_augmented.MemoryAugmented`. One linear map of the input gives each head a key k, its
    strength β, a gate g, a distribution s over shifts and an exponent γ, and each writing head an erasure e
    and an addition a. In a step every head finds its weights in the memory as the last step left it (eq. 5 to
    9); then all writing heads erase, all add (eq. 3 and 4), and the reading heads read what there is now
    (eq. 2), so that an input can be read in the step that writes it. (Eq. 5 prints M_t where a writing head
    can only know M_(t-1); here no head knows more.)

    Unlike in the paper, which does not say how it begins, a new memory is the same every time: the same small
    number throughout, from which Collier & Beel 2018, "Implementing Neural Turing Machines", found training
    to converge fastest, and all weights on the first slot. With even weights all slots would be alike to
    every head, and would stay so: nothing in the equations tells one from another.

    Args:
        input_size: width of what the controller gives.
        slots: N, the rows of the matrix.
        width: M, numbers in a slot.
        read_heads: heads that read; the output is what they read, side by side (read_heads * width).
        write_heads: heads that write.
        shifts: the furthest that a head moves in a step, in slots, either way.
    """

    def __init__(
        self,
        input_size: int,
        slots: int,
        width: int,
        *,
        read_heads: int = 1,
        write_heads: int = 1,
        shifts: int = 1,
    ) -> None:
        super().__init__()
        check_sizes(
            input_size=input_size,
            slots=slots,
            width=width,
            read_heads=read_heads,
            write_heads=write_heads,
            shifts=shifts,
        )
        self.input_size, self.output_size = input_size, read_heads * width
        self.slots, self.width, self.shifts = slots, width, shifts
        self.read_heads, self.write_heads = read_heads, write_heads
        # For each head, in this order: β and γ, g, s, k. Then e and a for each writing head.
        self._per_head = [2, 1, 2 * shifts + 1, width]
        self._heads = read_heads + write_heads
        self._parts = [self._heads * sum(self._per_head), write_heads * width, write_heads * width]
        self.interface = interface(input_size, sum(self._parts))

    def initial_state(self, batch_size: int) -> NTMState:
        """A blank memory, every head at its first slot."""
        first = functional.one_hot(self._origin.new_zeros(1, dtype=torch.int64), self.slots)
        first = first.to(self._origin.dtype).unsqueeze(0)
        return NTMState(
            self._origin.new_full((batch_size, self.slots, self.width), BLANK),
            first.expand(batch_size, self.read_heads, -1).clone(),
            first.expand(batch_size, self.write_heads, -1).clone(),
        )

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        """What all heads are told."""
        return self.interface(inputs)

    def step(
        self, prepared: Float[Tensor, "batch prepared"], state: NTMState
    ) -> tuple[Float[Tensor, "batch output"], NTMState]:
        # In the state's precision: in half of it a weight would stray with every shift.
        with torch.autocast(prepared.device.type, enabled=False):
            addresses, erasures, additions = prepared.to(state.memory).split(self._parts, dim=-1)
            weights = self._addressed(addresses.unflatten(-1, (self._heads, -1)), state)
            reading, writing = weights.split([self.read_heads, self.write_heads], dim=1)
            memory = erase_add(
                state.memory,
                writing,
                erasures.unflatten(-1, (self.write_heads, -1)).sigmoid(),
                additions.unflatten(-1, (self.write_heads, -1)),
            )
            return read(memory, reading).flatten(1), NTMState(memory, reading, writing)

    def _addressed(
        self, told: Float[Tensor, "batch heads parts"], state: NTMState
    ) -> Float[Tensor, "batch heads slots"]:
        """The weights of every head, the reading ones first: section 3.3."""
        scales, gates, shifts, keys = told.split(self._per_head, dim=-1)
        strengths, sharpness = functional.softplus(scales).unbind(-1)
        previous = torch.cat([state.read_weights, state.write_weights], dim=1)
        content = content_weights(keys, strengths, state.memory)
        weights = interpolate(content, previous, gates.squeeze(-1).sigmoid())
        return sharpen(shift(weights, shifts.softmax(-1)), 1 + sharpness)
