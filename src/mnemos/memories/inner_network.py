"""The network whose weights are a memory: what it answers, and what it would change to answer otherwise."""

import itertools
from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.ops.test_time import MixedLayers, back_through, gelu_slope, through

Trace = Sequence[Tensor]  # by layer, (batch, heads, time, width)
Error = Callable[[Tensor, Tensor], Tensor]  # answers and values -> the slope of the loss at the answers


@final
class InnerNetwork(nn.Module):
    """An MLP for each head, z_1 = W_1 x and z_l = W_l gelu(z_{l-1}); with one layer, a matrix.

    Its parameters are the weights with which a memory begins. The weights that it has come to later are given
    to each call, so that it also runs with weights that are never made (`mnemos.ops.test_time`).

    The last layer begins as zeros, so that a memory that was told nothing answers nothing. With `residual`
    all begin as small numbers (0.02): the slope of a norm of zeros would be steep without bound.

    Args:
        heads: independent networks.
        sizes: widths from the input over hidden layers to the output.
        bias: every layer has one, learned with its weights, of which it is the last row.
        residual: answers x + γ norm(z_L) + β, as in TTT; γ and β do not change with what is remembered.
    """

    def __init__(
        self, heads: int, sizes: Sequence[int], *, bias: bool = False, residual: bool = False
    ) -> None:
        super().__init__()
        self.bias, self.residual = bias, residual
        shapes = list(itertools.pairwise(sizes))
        scales = [0.02 if residual else into**-0.5 for into, _ in shapes]
        scales[-1] *= float(residual)
        matrices = [scale * torch.randn(heads, *shape) for scale, shape in zip(scales, shapes, strict=True)]
        # The bias is a last row, for an input that is always 1.
        self.weights = nn.ParameterList(functional.pad(matrix, (0, 0, 0, int(bias))) for matrix in matrices)
        if residual:
            self.scale = nn.Parameter(torch.ones(heads, 1, sizes[-1]))  # γ
            self.shift = nn.Parameter(torch.zeros(heads, 1, sizes[-1]))  # β

    @property
    def initial(self) -> tuple[Float[Tensor, "heads _into _out"], ...]:
        """The weights with which a memory begins, by layer."""
        return tuple(self.weights)

    def trace(self, layers: MixedLayers, x: Float[Tensor, "batch heads time keys"]) -> tuple[Trace, Trace]:
        """What goes into each layer, and what comes out of it."""
        inputs, sums = [], [x]
        for number in range(len(self.weights)):
            inputs.append(self._into(number, sums[-1]))
            sums.append(through(layers, number, inputs[-1]))
        return inputs, sums[1:]

    def answer(
        self, layers: MixedLayers, queries: Float[Tensor, "batch heads time keys"]
    ) -> tuple[Float[Tensor, "batch heads time width"], Float[Tensor, "batch heads time hidden"]]:
        """The answers, and what went into the last layer."""
        inputs, sums = self.trace(layers, queries)
        return self.out(queries, sums[-1]), inputs[-1]

    def surprise(
        self,
        layers: MixedLayers,
        keys: Float[Tensor, "batch heads time keys"],
        values: Float[Tensor, "batch heads time width"],
        error: Error,
    ) -> tuple[Trace, Trace]:
        """The gradient of every step's loss, by layer, as what went into the layer and what came back to its
        output: the gradient of its weights is their outer product."""
        inputs, sums = self.trace(layers, keys)
        return inputs, self.slopes(layers, keys, sums, values, error)

    def slopes(self, layers: MixedLayers, keys: Tensor, sums: Trace, values: Tensor, error: Error) -> Trace:
        """What comes back to the output of each layer, of which `sums` came out for these keys."""
        slopes = [self._back_out(sums[-1], error(self.out(keys, sums[-1]), values))]
        for number in reversed(range(1, len(self.weights))):
            back = back_through(layers, number, slopes[0])[..., : sums[number - 1].shape[-1]]
            slopes.insert(0, gelu_slope(back, sums[number - 1]))
        return slopes

    def out(self, x: Float[Tensor, "batch heads time keys"], sums: Tensor) -> Tensor:
        """The answer to x where `sums` come out of the last layer."""
        if not self.residual:
            return sums
        return x + functional.layer_norm(sums, sums.shape[-1:]) * self.scale + self.shift

    def _into(self, number: int, sums: Tensor) -> Tensor:
        active = functional.gelu(sums) if number else sums
        return functional.pad(active, (0, 1), value=1.0) if self.bias else active

    def _back_out(self, sums: Tensor, slope: Tensor) -> Tensor:
        """Back through `out`, not through its x, which no weight of the network has a say in."""
        if not self.residual:
            return slope
        slope = slope * self.scale
        centred = sums - sums.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        unit = centred * spread
        return spread * (slope - slope.mean(-1, keepdim=True) - unit * (slope * unit).mean(-1, keepdim=True))
