"""Compression functions: from a block of old steps to the one vector that is kept of it.

Rae et al. 2020, "Compressive Transformers for Long-Range Sequence Modelling", section 3.2.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import check_sizes
from mnemos.ops.documents import Places, pick


class Compression(nn.Module, ABC):
    """Makes one vector of every block of `rate` steps.

    A block is compressed for itself, whenever its time has come: what it becomes may depend on nothing but
    the steps that are given, and so not on where a sequence was cut.
    """

    reads_usage: bool = False  # whether `usage` is worth working out

    def __init__(self, rate: int) -> None:
        super().__init__()
        check_sizes(rate=rate)
        self.rate = rate  # c, steps of a block
        self.span = rate  # steps that are given: those of the block, and before them what more is looked at

    @abstractmethod
    def forward(
        self, steps: Float[Tensor, "batch blocks span width"], usage: Float[Tensor, "batch blocks span"]
    ) -> Float[Tensor, "batch blocks width"]:
        """What is kept of each block.

        Args:
            steps: the block's, the latest last; zeros where a document had not begun.
            usage: how much attention each step got on average while it could be seen, without gradients;
                zeros unless `reads_usage`.
        """

    def extra_repr(self) -> str:
        return f"rate={self.rate}"  # it is part of a snapshot's fingerprint


@final
class MeanPool(Compression):
    """The average of the steps."""

    def forward(
        self, steps: Float[Tensor, "batch blocks span width"], usage: Float[Tensor, "batch blocks span"]
    ) -> Float[Tensor, "batch blocks width"]:
        return steps.mean(2)


@final
class MaxPool(Compression):
    """The greatest of every component."""

    def forward(
        self, steps: Float[Tensor, "batch blocks span width"], usage: Float[Tensor, "batch blocks span"]
    ) -> Float[Tensor, "batch blocks width"]:
        return steps.amax(2)


@final
class MostUsed(Compression):
    """The step that got the most attention, as it is; of equals the earliest."""

    reads_usage = True

    def forward(
        self, steps: Float[Tensor, "batch blocks span width"], usage: Float[Tensor, "batch blocks span"]
    ) -> Float[Tensor, "batch blocks width"]:
        place = usage.argmax(2)[..., None, None].expand(-1, -1, 1, steps.shape[3])
        return steps.gather(2, place).squeeze(2)


@final
class Convolution(Compression):
    """A convolution whose kernel and stride are both `rate`: a linear map of the block, order and all.

    Args:
        width: of a step.
    """

    def __init__(self, width: int, rate: int) -> None:
        super().__init__(rate)
        check_sizes(width=width)
        self.width = width
        self.kernel = nn.Linear(rate * width, width)

    def forward(
        self, steps: Float[Tensor, "batch blocks span width"], usage: Float[Tensor, "batch blocks span"]
    ) -> Float[Tensor, "batch blocks width"]:
        return self.kernel(steps.flatten(2))


@final
class DilatedConvolution(Compression):
    """Convolutions of growing dilation, each added to what it looks at, and then `Convolution`.

    The paper gives no sizes for its dilated convolutions; here a kernel has three steps. A block's vector
    knows the 2 x sum(dilations) steps before the block too.

    Args:
        width: of a step.
        dilations: of the convolutions, the first first.
    """

    def __init__(self, width: int, rate: int, dilations: Sequence[int] = (1, 2)) -> None:
        super().__init__(rate)
        check_sizes(width=width, **{f"dilations[{i}]": size for i, size in enumerate(dilations)})
        self.width, self.dilations = width, tuple(dilations)
        self.span = rate + 2 * sum(dilations)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=size) for size in dilations)
        self.kernel = nn.Linear(rate * width, width)

    def forward(
        self, steps: Float[Tensor, "batch blocks span width"], usage: Float[Tensor, "batch blocks span"]
    ) -> Float[Tensor, "batch blocks width"]:
        x = steps.flatten(0, 1).mT
        for layer in self.layers:
            found = layer(x)
            x = x[..., x.shape[2] - found.shape[2] :] + functional.gelu(found)
        return self.kernel(x.mT.flatten(1)).unflatten(0, steps.shape[:2])


class View(NamedTuple):
    """The steps that are carried and those of a piece, padding before all others."""

    seen: Float[Tensor, "batch seen input"]
    usage: Float[Tensor, "batch seen"]  # the attention that each of them got
    place: Places
    new: Bool[Tensor, "batch seen"]  # true where a step is of the piece
    back: Int[Tensor, "batch time"] | None  # where the piece's steps are among the last; None for in order
    time: int  # steps of the piece


class LeavingBlocks(NamedTuple):
    """The blocks that leave a window while it moves over a piece, and the steps that could ask for them."""

    steps: Float[Tensor, "batch blocks span input"]
    usage: Float[Tensor, "batch blocks span"]
    document: Int[Tensor, "batch blocks"]  # -1 where a row had fewer
    last: Int[Tensor, "batch blocks"]  # the number of the block's last step in its document
    asking: Float[Tensor, "batch time input"]
    asking_document: Int[Tensor, "batch time"]  # -1 where there is no step


def blocks_leaving(view: View, window: int, compression: Compression) -> LeavingBlocks:
    """What a window lets go while it moves over a piece, in the order of time; at most time / rate blocks."""
    seen, usage, place, new, _, time = view
    rate, span = compression.rate, compression.span
    beyond = place.number + 1 - window  # steps that lie before the window of the next step
    ends = new & (place.document >= 0) & (beyond > 0) & (beyond % rate == 0)
    column = ends.byte().argsort(dim=1, descending=True, stable=True)[:, : -(-time // rate)]
    happened = ends.gather(1, column)
    back = torch.arange(span, device=seen.device) - window - span + 1
    index = (column.unsqueeze(2) + back).clamp_min(0)
    document = place.document.gather(1, column)
    known = place.document.gather(1, index.flatten(1)).unflatten(1, index.shape[1:])
    known = happened.unsqueeze(2) & (known == document.unsqueeze(2))
    steps = pick(seen, index.flatten(1)).unflatten(1, index.shape[1:])
    could_be_seen = window + torch.arange(span, 0, -1, device=seen.device)
    got = usage.gather(1, index.flatten(1)).unflatten(1, index.shape[1:]) / could_be_seen
    return LeavingBlocks(
        steps=torch.where(known.unsqueeze(-1), steps, 0),
        usage=torch.where(known, got, 0),
        document=document.masked_fill(~happened, -1),
        last=place.number.gather(1, column) - window,
        asking=seen[:, -time:],
        asking_document=place.document[:, -time:].masked_fill(~new[:, -time:], -1),
    )


@final
class Expansion(nn.Module):
    """What an auto-encoder makes of a compressed block: its `rate` steps again (the paper's g)."""

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        check_sizes(width=width, rate=rate)
        self.rate = rate
        self.kernel = nn.Linear(width, rate * width)

    def forward(
        self, compressed: Float[Tensor, "batch blocks width"]
    ) -> Float[Tensor, "batch blocks span width"]:
        steps: Tensor = self.kernel(compressed)
        return torch.unflatten(steps, 2, (self.rate, -1))
