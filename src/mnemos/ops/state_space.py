"""Diagonal state spaces, x' = A x + B u and y = C x: their discretisation, and three ways to run them.

Gu, Gupta, Goel & Ré 2022, "On the Parameterization and Initialization of Diagonal State Space Models". Poles
(the diagonal of A) come in conjugate pairs, of which one is kept: an output is twice the real part of what
the kept half gives. B is one, since only its product with C can be told from outside.
"""

from collections.abc import Callable
from math import isqrt, pi

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from mnemos.ops.scan import linear_scan

Discretisation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def linear_poles(state_size: int) -> Complex[Tensor, " slots"]:
    """S4D-Lin: -1/2 + iπn, half of them; about the frequencies of a Fourier series."""
    return torch.complex(torch.full((state_size // 2,), -0.5), pi * torch.arange(state_size // 2))


def inverse_poles(state_size: int) -> Complex[Tensor, " slots"]:
    """S4D-Inv: -1/2 + i N/π (N/(2n + 1) - 1), half of them, which are nearer to those of HiPPO-LegS."""
    order = torch.arange(state_size // 2)
    return torch.complex(
        torch.full((state_size // 2,), -0.5), state_size / pi * (state_size / (2 * order + 1) - 1)
    )


def zero_order_hold(
    poles: Complex[Tensor, "width slots"], steps: Float[Tensor, " width"]
) -> tuple[Complex[Tensor, "width slots"], Complex[Tensor, "width slots"]]:
    """Exact for an input that stays between steps: the logarithm of Ā = exp(ΔA), and B̄ = (Ā - 1) / A."""
    logarithms = steps.unsqueeze(1) * poles
    # exp(z) - 1 without the difference, of which nothing would be left for small steps.
    decay, turn = torch.expm1(logarithms.real), logarithms.imag
    real = decay * turn.cos() - 2 * (turn / 2).sin().square()
    return logarithms, torch.complex(real, (decay + 1) * turn.sin()) / poles


def bilinear(
    poles: Complex[Tensor, "width slots"], steps: Float[Tensor, " width"]
) -> tuple[Complex[Tensor, "width slots"], Complex[Tensor, "width slots"]]:
    """Tustin's rule, as in S4: the logarithm of Ā = (1 + ΔA/2) / (1 - ΔA/2), and B̄ = Δ / (1 - ΔA/2)."""
    half = steps.unsqueeze(1) * poles / 2
    return ((1 + half) / (1 - half)).log(), steps.unsqueeze(1) / (1 - half)


def state_space_loop(
    inputs: Float[Tensor, "batch time width"],
    logarithms: Complex[Tensor, "width slots"],
    writing: Complex[Tensor, "width slots"],
    reading: Complex[Tensor, "width slots"],
    state: Complex[Tensor, "batch width slots"],
    real: Bool[Tensor, "batch time"],
    reset: Bool[Tensor, "batch time"],
) -> tuple[Float[Tensor, "batch time width"], Complex[Tensor, "batch width slots"]]:
    """The recurrence, step by step: x_t = Ā x_{t-1} + B̄ u_t, y_t = 2 Re(C x_t), and the last state.

    Args:
        logarithms: of Ā.
        writing: B̄.
        reading: C.
        real: false where a step is the identity on the state.
        reset: true where the state is zero before the step.
    """
    decay, outputs = logarithms.exp(), []
    for u, known, starts in zip(inputs.unbind(1), real.unbind(1), reset.unbind(1), strict=True):
        state = state.masked_fill(starts[:, None, None], 0)
        state = torch.where(known[:, None, None], decay * state + writing * u.unsqueeze(2), state)
        outputs.append(2 * (reading * state).sum(2).real)
    return torch.stack(outputs, dim=1) if outputs else inputs, state


def state_space_scan(
    inputs: Float[Tensor, "batch time width"],
    logarithms: Complex[Tensor, "width slots"],
    writing: Complex[Tensor, "width slots"],
    reading: Complex[Tensor, "width slots"],
    state: Complex[Tensor, "batch width slots"],
    real: Bool[Tensor, "batch time"],
    reset: Bool[Tensor, "batch time"],
) -> tuple[Float[Tensor, "batch time width"], Complex[Tensor, "batch width slots"]]:
    """The same as `state_space_loop`, as one scan that holds the states of all steps."""
    here = real[:, :, None, None]
    decays = torch.where(here, logarithms.exp(), 1).masked_fill(reset[:, :, None, None], 0)
    states = linear_scan(decays, torch.where(here, writing * inputs.unsqueeze(3), 0), state)
    last = states[:, -1].clone() if inputs.shape[1] else state
    return 2 * (reading * states).sum(3).real, last


def state_space_convolution(
    inputs: Float[Tensor, "batch time width"],
    logarithms: Complex[Tensor, "width slots"],
    writing: Complex[Tensor, "width slots"],
    reading: Complex[Tensor, "width slots"],
    state: Complex[Tensor, "batch width slots"],
) -> tuple[Float[Tensor, "batch time width"], Complex[Tensor, "batch width slots"]]:
    """The same where every step is real and none starts afresh: a convolution with the kernel, by FFT.

    What the state before the first step still says is added to it. Powers of Ā are taken in two digits, t =
    i q + j with q near √T, so that about 2 √T of them are made in place of T.
    """
    time = inputs.shape[1]
    inputs = inputs.mT  # (batch, width, time)
    radix = isqrt(time - 1) + 1
    digits = torch.arange(radix, device=inputs.device)
    low = (logarithms.unsqueeze(2) * digits).exp()
    high = (logarithms.unsqueeze(2) * (radix * digits)).exp()
    kernel = _response(reading * writing, high, low)[:, :time]
    carried = _response(reading * logarithms.exp() * state, high, low)[:, :, :time]
    spectrum = torch.fft.rfft(inputs, n=2 * time) * torch.fft.rfft(kernel, n=2 * time)
    outputs = torch.fft.irfft(spectrum, n=2 * time)[:, :, :time] + carried
    latest_first = torch.nn.functional.pad(inputs.flip(2), (0, radix * radix - time)).unflatten(
        2, (radix, radix)
    )
    parts = latest_first @ torch.cat([low.real, low.imag], dim=1).mT  # (batch, width, high digit, both)
    sums = torch.complex(*parts.chunk(2, dim=3))
    entered = writing * (sums * high.mT).sum(2)
    return outputs.mT, entered + (time * logarithms).exp() * state


def _response(weights: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """2 Re Σ_n weights_n Ā_n^t for all t, as a product of real matrices: (..., width, time)."""
    left = weights.unsqueeze(-1) * high
    left = torch.cat([left.real, -left.imag], dim=-2).mT
    return 2 * (left @ torch.cat([low.real, low.imag], dim=-2)).flatten(-2)
