"""A selective state space: S6, the recurrence of Mamba."""

import math
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import Memory, check_sizes
from mnemos.memories.s4d import check_step_range
from mnemos.ops.forgetting import starting_steps
from mnemos.ops.selective_scan import selective_scan, selective_scan_loop


class SelectiveStateSpaceState(NamedTuple):
    """What a `SelectiveStateSpace` remembers."""

    states: Float[Tensor, "batch width slots"]  # h_t; never below float32


@final
class SelectiveStateSpace(Memory):
    """In each channel a few decaying traces, where the input decides how much enters, stays, and is told.

    Gu & Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", algorithm 2 (S6):

        Δ_t = softplus(W_Δ x_t + b_Δ),  B_t = W_B x_t,  C_t = W_C x_t
        h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t,  y_t = C_t h_t + D x_t

    with A below zero, diagonal for each channel, and W_Δ of low rank. A large Δ_t lets go of the past and
    takes the input in; Δ_t = 0 passes it over.

    The short convolution and the SiLU before it, the gate and both linear maps around it, which make up a
    Mamba block, are the network's.

    Args:
        input_size: channels of inputs and outputs.
        state_size: N, numbers of a channel.
        step_rank: of W_Δ; None means input_size / 32, rounded up, which is the paper's 1/16 of the width of a
            model with twice as many channels.
        step_range: where softplus(b_Δ) begins, logarithmically uniform over channels.
    """

    def __init__(
        self,
        input_size: int,
        state_size: int = 16,
        step_rank: int | None = None,
        step_range: tuple[float, float] = (0.001, 0.1),
    ) -> None:
        super().__init__()
        step_rank = math.ceil(input_size / 32) if step_rank is None else step_rank
        check_sizes(input_size=input_size, state_size=state_size, step_rank=step_rank)
        check_step_range(step_range)
        self.input_size = self.output_size = input_size
        self.state_size, self.step_rank, self.step_range = state_size, step_rank, step_range
        self.naive = False
        self.chosen = nn.Linear(
            input_size, step_rank + 2 * state_size, bias=False
        )  # the first of W_Δ, W_B, W_C
        self.step = nn.Linear(step_rank, input_size)  # the rest of W_Δ, and b_Δ
        # S4D-Real: A = -1, -2, ...
        self.log_rates = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(input_size, 1))
        self.skip = nn.Parameter(torch.ones(input_size))  # D
        nn.init.uniform_(self.step.weight, -(step_rank**-0.5), step_rank**-0.5)
        self.step.bias = nn.Parameter(starting_steps(input_size, step_range))

    def initial_state(self, batch_size: int) -> SelectiveStateSpaceState:
        """Nothing has come in."""
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        shape = (batch_size, self.input_size, self.state_size)
        return SelectiveStateSpaceState(self._origin.new_zeros(shape, dtype=dtype))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: SelectiveStateSpaceState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], SelectiveStateSpaceState]:
        state, real, _ = self.begin(inputs, state, mask, reset)
        dtype, given = state.states.dtype, inputs.dtype
        inputs = torch.where(real.unsqueeze(2), inputs, 0)  # padding may hold anything, NaN included
        low, writing, reading = self.chosen(inputs).split(
            [self.step_rank, self.state_size, self.state_size], dim=2
        )
        steps = functional.softplus(self.step(low).to(dtype)) * real.unsqueeze(2)
        run = selective_scan_loop if self.naive else selective_scan
        with torch.autocast(inputs.device.type, enabled=False):
            wide, rates = inputs.to(dtype), -self.log_rates.to(dtype).exp()
            outputs, states = run(
                wide, steps, rates, writing.to(dtype), reading.to(dtype), state.states, reset
            )
            outputs = torch.where(real.unsqueeze(2), outputs + self.skip.to(dtype) * wide, 0)
        return outputs.to(given), SelectiveStateSpaceState(states)
