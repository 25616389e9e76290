"""A short convolution: every channel mixes its last few steps."""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import Memory, check_sizes
from mnemos.ops.windows import windows
from mnemos.tree import reset_rows, where_rows


class ShortConvolutionState(NamedTuple):
    """The last real steps of a row's document, the oldest first; zeros where it had not begun."""

    inputs: Float[Tensor, "batch slots input"]


@final
class ShortConvolution(Memory):
    """A causal convolution in each channel over the last real steps of a row's own document.

    What stands before the mixer in most sequence models with a linear recurrence (Fu et al. 2022, "Hungry
    Hungry Hippos", shift SSM; Gu & Dao 2023; Yang et al. 2024): with it a step can tell what came just before
    it, which a mixer whose keys and values are maps of one step cannot write as an association.

    It is linear. The SiLU that Mamba and DeltaNet have behind it is the network's, `silu(convolution(x))`,
    so that the same part also serves where a paper has none.

    Args:
        kernel_size: steps that are mixed, the present one included.
    """

    def __init__(self, input_size: int, kernel_size: int = 4) -> None:
        super().__init__()
        check_sizes(input_size=input_size, kernel_size=kernel_size)
        self.input_size = self.output_size = input_size
        self.kernel_size = kernel_size
        self.naive = False
        # As torch draws a convolution's weights; the newest step first.
        bound = kernel_size**-0.5
        self.taps = nn.Parameter(torch.empty(kernel_size, input_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(input_size))

    def initial_state(self, batch_size: int) -> ShortConvolutionState:
        """Nothing before the first step."""
        return ShortConvolutionState(
            self._origin.new_zeros(batch_size, self.kernel_size - 1, self.input_size)
        )

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: ShortConvolutionState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], ShortConvolutionState]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        inputs = inputs.to(state.inputs.dtype)
        if mask is not None:
            inputs = torch.where(real.unsqueeze(2), inputs, 0)  # padding may hold anything, NaN included
        if self.naive:
            return self._loop(inputs, state, real, fresh)
        if mask is None and reset is None and inputs.shape[1]:
            joined = torch.cat([state.inputs, inputs], dim=1)
            # A copy: a view would keep the whole stretch alive.
            return self._convolved(joined), ShortConvolutionState(joined[:, inputs.shape[1] :].clone())
        moved = None if mask is None else real
        seen, after = windows(state.inputs, inputs, 0, fresh.cumsum(1), moved, self.kernel_size)
        outputs = (seen * self.taps.mT).sum(3) + self.bias
        return torch.where(real.unsqueeze(2), outputs, 0), ShortConvolutionState(after)

    def _convolved(self, joined: Float[Tensor, "batch seen input"]) -> Float[Tensor, "batch time output"]:
        # Two-dimensional, with a height of one: on the CPU torch's kernel for that is faster than its
        # one-dimensional convolution, and than a sum of shifted products.
        with torch.autocast(joined.device.type, enabled=False):
            rows = functional.conv2d(
                joined.mT.unsqueeze(2),
                self.taps.flip(0).mT[:, None, None],
                self.bias,
                groups=self.input_size,
            )
        return rows.squeeze(2).mT

    def _loop(
        self, inputs: Tensor, state: ShortConvolutionState, real: Tensor, fresh: Tensor
    ) -> tuple[Tensor, ShortConvolutionState]:
        """One step after the other: the specification of what `forward` does at once."""
        nothing, outputs = self.initial_state(1), []
        for step, known, starts in zip(inputs.unbind(1), real.unbind(1), fresh.unbind(1), strict=True):
            state = reset_rows(state, starts, nothing)
            seen = torch.cat([state.inputs, step.unsqueeze(1)], dim=1)
            output = (seen.flip(1) * self.taps).sum(1) + self.bias
            outputs.append(torch.where(known.unsqueeze(1), output, 0))
            state = where_rows(known, ShortConvolutionState(seen[:, 1:]), state)
        return torch.stack(outputs, dim=1) if outputs else inputs, state
