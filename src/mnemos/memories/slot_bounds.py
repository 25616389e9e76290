"""Upper bounds on how similar a query is to any slot of a group, from a copy of the slots in 8 bits."""

from functools import cache
from typing import final

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.ops.delta_rule import unit

GROUP = 64  # slots in a row that share a bound
APART = 512  # groups of a block, which are compared together: their numbers stay in a processor's cache
PIECE = 32  # groups that are rounded together, for the same reason; it divides APART
ROUNDING = 1e-5  # more than a cosine in 32 bits is ever wrong by


@final
class SlotBounds:
    """Every slot scaled to length 1 and rounded to multiples of 1/127: a quarter of the table to go through.

    With û and q̂ for what rounding leaves of a slot u and a query q, both of length 1,
    u·q = û·q̂ + û·(q - q̂) + (u - û)·q, of which the first is computed, in whole numbers and so exactly, and
    the rest is at most (1 + ρ) |q - q̂| + ρ, where ρ = √width / 254 is at least any |u - û|. So the bounds
    hold for any table. They save work where few slots are nearly as similar as the best.

    Within a block come the first slots of all groups, then the second ones: so a group's greatest is that of
    long rows, of which a processor takes many numbers at a time.

    Args:
        memory: the slots, on a CPU.
    """

    def __init__(self, memory: Float[Tensor, "batch slots width"]) -> None:
        batch, self.slots, width = memory.shape
        shape = (batch, -(-self.slots // (GROUP * APART)), GROUP, APART, width)
        # Of NumPy, since it asks for large pages where torch does not: a quarter less time to go through.
        self.codes = torch.from_numpy(numpy.empty(shape, numpy.int8)).zero_()
        self.error = width**0.5 / 254  # ρ
        aligned = self.slots // GROUP * GROUP
        for row, blocks in zip(memory, self.codes, strict=True):
            for number, some in enumerate(row[:aligned].split(GROUP * PIECE)):
                block, first = divmod(number * PIECE, APART)
                groups = _rounded(some).view(-1, GROUP, width).transpose(0, 1)
                blocks[block, :, first : first + groups.shape[1]].copy_(groups)
        last = torch.arange(aligned, self.slots)
        for row, contents in enumerate(memory[:, aligned:]):
            self.update(row * self.slots + last, contents)

    def update(self, changed: Int[Tensor, " changed"], contents: Float[Tensor, "changed width"]) -> None:
        """Takes note of what slots now hold, numbered through all rows."""
        rows, slots = changed // self.slots, changed % self.slots
        groups = rows * self.codes.shape[1] * APART + slots // GROUP
        places = (groups // APART * GROUP + slots % GROUP) * APART + groups % APART
        self.codes.view(-1, contents.shape[1]).index_copy_(0, places, _rounded(contents).to(torch.int8))

    def of_groups(
        self, queries: Float[Tensor, "batch heads width"], end: int
    ) -> Float[Tensor, "batch heads groups"]:
        """A bound of the cosines of each group with queries of length 1, for the slots before `end`."""
        scale = queries.abs().amax(2, keepdim=True).clamp_min(1e-30) / 127
        whole = (queries / scale).round()
        batch, heads, _ = queries.shape
        blocks = self.codes[:, : -(-end // (GROUP * APART))].flatten(2, 3)
        greatest = torch.empty(batch, blocks.shape[1], APART * heads, dtype=torch.int32)
        dots = torch.empty(GROUP * APART, heads, dtype=torch.int32)
        for row, asked, places in zip(blocks, whole.to(torch.int8).mT, greatest, strict=True):
            for codes, place in zip(row, places, strict=True):
                torch._int_mm(codes, asked, out=dots)
                torch.amax(dots.view(GROUP, -1), 0, out=place)
        slack = (1 + self.error) * (queries - whole * scale).norm(dim=2, keepdim=True) + self.error + ROUNDING
        return torch.addcmul(slack, greatest.view(batch, -1, heads).mT.to(scale), scale / 127)


@cache
def products_are_exact(width: int, heads: int) -> bool:
    """Whether torch multiplies 8 bits rightly here; else there are no bounds.

    On processors without such an instruction sums of two products saturate (PyTorch's issue 136746), and some
    versions get a width of 1 wrong.
    """
    signs = torch.Generator().manual_seed(0)
    table, asked = (
        127 * torch.randint(2, (rows, width), generator=signs).mul(2).sub(1) for rows in (4 * GROUP, heads)
    )
    products = torch._int_mm(table.to(torch.int8), asked.to(torch.int8).mT)
    return torch.equal(products.long(), table @ asked.mT)


def _rounded(contents: Tensor) -> Tensor:
    return unit(contents).mul_(127).round_()
