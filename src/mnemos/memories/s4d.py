"""A diagonal state space: S4D."""

import math
from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from mnemos.memories.base import Memory, check_sizes
from mnemos.ops.forgetting import log_uniform
from mnemos.ops.state_space import (
    Discretisation,
    linear_poles,
    state_space_convolution,
    state_space_loop,
    state_space_scan,
    zero_order_hold,
)


class S4DState(NamedTuple):
    """What an `S4D` remembers."""

    states: Float[Tensor, "batch width slots 2"]  # x_t, real and imaginary parts; never below float32


@final
class S4D(Memory):
    """In each channel a few damped oscillators that the input drives: the past, as far as they ring.

    Gu, Gupta, Goel & Ré 2022, "On the Parameterization and Initialization of Diagonal State Space Models".
    For every channel

        x' = A x + u,  y = 2 Re(C x) + D u

    with a diagonal A whose real part is below zero, discretised with a step Δ of its own. All of A, C, D and
    Δ are learned. They are the same at every step: what is kept and for how long cannot depend on what it is.
    Channels do not mix, and the nonlinearity behind it is the network's, as in the paper.

    A stretch without mask and reset is a convolution, by FFT; one with either is a scan.

    Args:
        input_size: channels of inputs and outputs.
        state_size: N, of a channel, even: N / 2 oscillators, a pair of poles each.
        poles: where A begins, by N: `ops.state_space.linear_poles` (S4D-Lin) or `inverse_poles` (S4D-Inv).
        discretisation: `ops.state_space.zero_order_hold` or `bilinear`.
        step_range: where Δ begins, logarithmically uniform over channels.
    """

    def __init__(
        self,
        input_size: int,
        state_size: int = 64,
        poles: Callable[[int], Tensor] = linear_poles,
        discretisation: Discretisation = zero_order_hold,
        step_range: tuple[float, float] = (0.001, 0.1),
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, state_size=state_size)
        if state_size % 2:
            raise ValueError(f"state_size must be even, not {state_size}")
        check_step_range(step_range)
        self.input_size = self.output_size = input_size
        self.state_size, self.poles, self.discretisation = state_size, poles, discretisation
        self.step_range = step_range
        self.naive = False
        begin, shape = poles(state_size), (input_size, state_size // 2)
        self.log_steps = nn.Parameter(log_uniform(step_range, input_size))  # log Δ
        self.log_damping = nn.Parameter((-begin.real).log().repeat(input_size, 1))  # log(-Re A)
        self.frequencies = nn.Parameter(begin.imag.repeat(input_size, 1))  # Im A
        self.reading = nn.Parameter(torch.randn(*shape, 2) * math.sqrt(0.5))  # C
        self.skip = nn.Parameter(torch.ones(input_size))  # D

    def initial_state(self, batch_size: int) -> S4DState:
        """At rest."""
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        shape = (batch_size, self.input_size, self.state_size // 2, 2)
        return S4DState(self._origin.new_zeros(shape, dtype=dtype))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: S4DState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], S4DState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        dtype, given = state.states.dtype, inputs.dtype
        inputs = torch.where(real.unsqueeze(2), inputs, 0).to(
            dtype
        )  # padding may hold anything, NaN included
        with torch.autocast(inputs.device.type, enabled=False):
            space = (*self._space(dtype), torch.view_as_complex(state.states))
            if self.naive:
                outputs, last = state_space_loop(inputs, *space, real, fresh)
            elif mask is None and reset is None and inputs.shape[1] > 1:
                outputs, last = state_space_convolution(inputs, *space)
            else:
                outputs, last = state_space_scan(inputs, *space, real, fresh)
            outputs = torch.where(real.unsqueeze(2), outputs + self.skip.to(dtype) * inputs, 0)
        return outputs.to(given), S4DState(torch.view_as_real(last.resolve_conj()))

    def _space(
        self, dtype: torch.dtype
    ) -> tuple[
        Complex[Tensor, "width slots"], Complex[Tensor, "width slots"], Complex[Tensor, "width slots"]
    ]:
        """The logarithm of Ā, B̄ and C."""
        poles = torch.complex(-self.log_damping.to(dtype).exp(), self.frequencies.to(dtype))
        logarithms, writing = self.discretisation(poles, self.log_steps.to(dtype).exp())
        return logarithms, writing, torch.view_as_complex(self.reading.to(dtype))


def check_step_range(bounds: tuple[float, float]) -> None:
    """Raises ValueError unless it is (least, most), both above zero."""
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"step_range must be (least, most), above 0, not {bounds}")
