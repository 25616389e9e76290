"""How the two reads of a memorizing attention become one."""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Combination(nn.Module, ABC):
    """How much of what a head reads comes from its memory, and how much from its window."""

    @abstractmethod
    def forward(
        self, window: Float[Tensor, "batch heads time"], memory: Float[Tensor, "batch heads time"]
    ) -> Float[Tensor, "batch heads time"]:
        """The memory's share, 0 to 1, from the logarithms of the sums of what the softmaxes normalise."""


@final
class HeadGate(Combination):
    """A share for every head, whatever is read: g = σ(b_g), Wu et al. 2022, section 3.2."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.bias = nn.Parameter(torch.zeros(heads))  # b_g

    def forward(
        self, window: Float[Tensor, "batch heads time"], memory: Float[Tensor, "batch heads time"]
    ) -> Float[Tensor, "batch heads time"]:
        return self.bias.sigmoid()[:, None].expand_as(window)


@final
class JointSoftmax(Combination):
    """One softmax over what lies in the window and what was found in the memory, as in the first version."""

    def forward(
        self, window: Float[Tensor, "batch heads time"], memory: Float[Tensor, "batch heads time"]
    ) -> Float[Tensor, "batch heads time"]:
        return (memory - window).sigmoid()
