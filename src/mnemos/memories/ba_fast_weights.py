"""Fast weights inside a recurrent network: the recent past attracts the hidden state."""

from collections.abc import Callable
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import check_sizes
from mnemos.memories.stepped import SteppedMemory

# W begins as this share of the identity: a hidden state fades at once, and what lasts is in the fast weights.
SELF_RECURRENCE = 0.05


class BaFastWeightsState(NamedTuple):
    """The hidden state, and the matrix that its past has written."""

    hidden: Float[Tensor, "batch width"]  # h_t
    weights: Float[Tensor, "batch width width"]  # A_t; never below float32


@final
class BaFastWeights(SteppedMemory):
    """A recurrent network that attends to its own recent hidden states through a matrix of fast weights.

    Ba, Hinton, Mnih, Leibo & Ionescu 2016, "Using Fast Weights to Attend to the Recent Past", eq. 1 and 2:

        A_t = λ A_{t-1} + η h_t ⊗ h_t
        h_0 = f(W h_t + C x_t),  h_{s+1} = f(LN(W h_t + C x_t + A_t h_s))

    for `settling` steps s, the last of which is h_{t+1}. What is written is each hidden state onto itself, so
    that a part of one brings back the rest. Layer normalisation is not an extra: without it the sums grow or
    fade with λ and η. With `settling` of zero it is a plain recurrent network with f = ReLU.

    Args:
        hidden_size: width of the hidden state, which is the output.
        settling: S, times that the hidden state is drawn towards what it remembers.
        decay: λ in 0 to 1.
        rate: η above 0.
        activation: f.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        settling: int = 1,
        decay: float = 0.95,
        rate: float = 0.5,
        activation: Callable[[Tensor], Tensor] = functional.relu,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, hidden_size=hidden_size)
        if settling < 0:
            raise ValueError(f"settling must be at least 0, not {settling}")
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be 0 to 1, not {decay}")
        if rate <= 0:
            raise ValueError(f"rate must be above 0, not {rate}")
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.settling, self.decay, self.rate, self.activation = settling, decay, rate, activation
        self.input = nn.Linear(input_size, hidden_size)  # C
        self.recurrence = nn.Linear(hidden_size, hidden_size, bias=False)  # W
        self.recurrence.weight = nn.Parameter(SELF_RECURRENCE * torch.eye(hidden_size))
        self.norm = nn.LayerNorm(hidden_size) if settling else nn.Identity()

    def initial_state(self, batch_size: int) -> BaFastWeightsState:
        """Zeros."""
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        hidden = self._origin.new_zeros(batch_size, self.hidden_size)
        weights = hidden.new_zeros(batch_size, self.hidden_size, self.hidden_size, dtype=dtype)
        return BaFastWeightsState(hidden, weights)

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        """C x."""
        return self.input(inputs)

    def step(
        self, prepared: Float[Tensor, "batch prepared"], state: BaFastWeightsState
    ) -> tuple[Tensor, BaFastWeightsState]:
        hidden, weights = state
        boundary = (prepared + self.recurrence(hidden)).to(hidden)
        past = hidden.to(weights)
        weights = self.decay * weights + self.rate * past.unsqueeze(2) * past.unsqueeze(1)
        hidden = self.activation(boundary)
        for _ in range(self.settling):
            with torch.autocast(hidden.device.type, enabled=False):
                drawn = torch.einsum("bij,bj->bi", weights, hidden.to(weights)).to(boundary)
                hidden = self.activation(self.norm(boundary + drawn))
        return hidden, BaFastWeightsState(hidden, weights)
