"""Which slots were accessed longest ago, without looking at all of them."""

import math
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NEVER_TAKEN = torch.iinfo(torch.int64).max


@final
class AccessOrder:
    """The last access of every slot, and the earliest of every block of about √slots / 4.

    The k least recent slots lie in the k blocks with the earliest access: a step looks at these, and at the
    blocks that it touched. `mnemos.ops.sparse_access.least_recent_slots` is the same over all slots.

    Args:
        last_access: when each slot was accessed, no two of a row at the same time.
    """

    def __init__(self, last_access: Int[Tensor, "batch slots"]) -> None:
        batch, self.slots = last_access.shape
        # Shorter than √slots, since a step looks into a few dozen blocks and but once over their number.
        self.block = 1 << max(0, math.ceil(math.log2(self.slots) / 2) - 2)
        self.blocks = -(-self.slots // self.block)
        self.stamps = last_access.new_full((batch, self.blocks * self.block), NEVER_TAKEN)
        self.stamps[:, : self.slots] = last_access
        self.earliest = self.stamps.view(batch, self.blocks, self.block).amin(2)
        self.rows = torch.arange(batch, device=last_access.device).unsqueeze(1)

    def least_recent(self, count: int) -> Int[Tensor, "batch count"]:
        """The slot that was accessed longest ago, and the next ones; with more than all they begin again."""
        some = min(count, self.slots)
        blocks = self.earliest.topk(min(some, self.blocks), dim=1, largest=False).indices
        stamps = self.stamps.view(-1, self.blocks, self.block)[self.rows, blocks].flatten(1)
        place = stamps.topk(some, dim=1, largest=False).indices
        order = blocks.gather(1, place // self.block) * self.block + place % self.block
        return order[:, torch.arange(count, device=order.device) % self.slots]

    def touch(self, slots: Int[Tensor, "batch touched"], stamps: Int[Tensor, "batch touched"]) -> None:
        """Accesses slots; one that is older than what is known changes nothing."""
        self.stamps.scatter_reduce_(1, slots, stamps, "amax")
        blocks = slots // self.block
        held = self.stamps.view(-1, self.blocks, self.block)[self.rows, blocks]
        self.earliest.scatter_(1, blocks, held.amin(2))

    def start_afresh(self, rows: Bool[Tensor, " batch"]) -> None:
        """No slot of these rows was accessed: the first is the least recent."""
        order = torch.arange(self.blocks * self.block, device=rows.device)
        fresh = order.masked_fill(order >= self.slots, NEVER_TAKEN)
        self.stamps[rows] = fresh
        self.earliest[rows] = fresh.view(self.blocks, self.block).amin(1)

    def end(self) -> Int[Tensor, "batch slots"]:
        """The last access of every slot, as a tensor of its own."""
        return self.stamps[:, : self.slots].clone()
