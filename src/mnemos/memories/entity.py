"""The recurrent entity network's memory: slots with keys of their own, each with its own gate."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import Reading, check_sizes
from mnemos.memories.stepped import SteppedMemory


class EntNetState(NamedTuple):
    """What is known of every entity."""

    memory: Float[Tensor, "batch slots width"]  # h_j, of length one after the first step


@final
class EntNet(SteppedMemory):
    """Keeps a vector for each of several entities, and changes those that a sentence is about.

    Henaff et al. 2017, "Tracking the World State with Recurrent Entity Networks", equations (2) to (5). With
    s the input, w_j the learned key of slot j and h_j what it holds, which begins as w_j:

        g_j = σ(s·h_j + s·w_j),   h̃_j = φ(U h_j + V w_j + W s),   h_j ← (h_j + g_j h̃_j) / |h_j + g_j h̃_j|

    Dividing by the length is what forgets: what is written takes from what was there. All slots share U, V
    and W. φ is a rectifier with a learned slope below zero, one for each dimension. The output is `read` with
    the input as the question, after the write.

    Args:
        width: of inputs, slots and outputs.
        slots: entities.
    """

    def __init__(self, width: int, slots: int) -> None:
        super().__init__()
        check_sizes(width=width, slots=slots)
        self.width = self.input_size = self.output_size = width
        self.slots = slots
        self.keys = nn.Parameter(torch.randn(slots, width) / width**0.5)  # w_j
        self.from_memory = nn.Linear(width, width, bias=False)  # U
        self.from_keys = nn.Linear(width, width, bias=False)  # V
        self.from_input = nn.Linear(width, width, bias=False)  # W
        # Of φ below zero. Beginning as the identity, 1, would leave only the gates to multiply anything.
        self.slope = nn.Parameter(torch.full((width,), 0.25))

    def initial_state(self, batch_size: int) -> EntNetState:
        """Every slot holds its key."""
        return EntNetState(self.keys.unsqueeze(0).expand(batch_size, -1, -1))

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        """s, then s·w_j, then V w_j + W s, of every slot j."""
        given = self.from_input(inputs).unsqueeze(-2) + self.from_keys(self.keys)
        return torch.cat([inputs, inputs @ self.keys.mT, given.flatten(-2)], dim=-1)

    def step(
        self, prepared: Float[Tensor, "batch prepared"], state: EntNetState
    ) -> tuple[Float[Tensor, "batch output"], EntNetState]:
        state = self.told(prepared, state)
        question = prepared[:, : self.width].to(state.memory)
        return self.read(state, question.unsqueeze(1)).values.squeeze(1), state

    def told(self, prepared: Float[Tensor, "batch prepared"], state: EntNetState) -> EntNetState:
        """What is known after a sentence: a step without its output."""
        held = state.memory
        sizes = [self.width, self.slots, self.slots * self.width]
        given, fitting, candidate = prepared.to(held).split(sizes, dim=-1)
        gate = ((held @ given.unsqueeze(-1)).to(held).squeeze(-1) + fitting).sigmoid()
        candidate = self.from_memory(held).to(held) + candidate.unflatten(-1, (self.slots, self.width))
        # φ wants the width second.
        candidate = functional.prelu(candidate.flatten(0, 1), self.slope.to(held)).view_as(held)
        return EntNetState(functional.normalize(held + gate.unsqueeze(-1) * candidate, dim=-1))

    def read(self, state: EntNetState, queries: Float[Tensor, "batch time width"]) -> Reading:
        """Attention over the slots (eq. 6): the sum of h_j weighed by softmax_j(q·h_j)."""
        self.check_rows(state, queries.shape[0])
        held = state.memory
        weights = (queries.to(held) @ held.mT).to(held).softmax(-1)
        slots = torch.arange(self.slots, device=held.device).expand(weights.shape)
        return Reading((weights @ held).to(held), weights, slots)
