"""What every model is that makes inputs like those that it has learned from."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


class GenerativeModel(nn.Module, ABC):
    """Learns what inputs look like, and makes others like them. Two methods, and any network will do.

    Both draw from the generator they are given, and from torch's own without one; so whoever gives one, and
    keeps its state, gets the same again.
    """

    @abstractmethod
    def loss(
        self, inputs: Shaped[Tensor, "rows ..."], generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """What is to be made small so that the model makes inputs like these: the mean over rows."""

    @abstractmethod
    def sample(self, rows: int, generator: torch.Generator | None = None) -> Shaped[Tensor, "rows ..."]:
        """New inputs, on the model's device."""


def normal(like: Float[Tensor, "..."], *shape: int, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise of a shape, of the type and on the device of a tensor.

    It is drawn on the device of the generator, so that one on the CPU gives the same to every device.
    """
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
