"""Finding the slots nearest to a query in a table that changes a little at every step."""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.ops.delta_rule import unit

BLOCK = 32_768  # slots that are compared together: their numbers stay in a processor's cache
GROUP = 64  # slots of which at first only the best is looked at


class SlotSearch(ABC):
    """Looks for the greatest cosine among the slots that are not empty. Nothing in it has a gradient."""

    @abstractmethod
    def build(self, memory: Float[Tensor, "batch slots width"]) -> None:
        """Takes a table, which will be changed in place."""

    @abstractmethod
    def update(self, changed: Int[Tensor, " changed"]) -> None:
        """Takes note that slots have changed: their numbers in the table of all rows, one after the other."""

    @abstractmethod
    def nearest(
        self, queries: Float[Tensor, "batch heads width"], count: int
    ) -> Int[Tensor, "batch heads found"]:
        """The best slots of each query, best first; empty ones where there are no others."""


@final
class ExactSearch(SlotSearch):
    """Compares with every slot up to the last that was ever written.

    The best slots lie in the best groups: the greatest of every group is found first, which a processor does
    as fast as it reads, and then only as many groups as slots are wanted are sorted.
    """

    def build(self, memory: Float[Tensor, "batch slots width"]) -> None:
        self.memory = memory
        self.slots = memory.shape[1]
        squares = torch.linalg.vector_norm(memory, dim=2).square_()
        self.scale = squares.clamp_min(1e-6).rsqrt_()
        self.penalty = torch.zeros_like(squares).masked_fill_(squares == 0, -torch.inf)
        filled = (squares > 0).any(0).nonzero()
        self.extent = int(filled[-1]) + 1 if len(filled) else 0

    def update(self, changed: Int[Tensor, " changed"]) -> None:
        squares = self.memory.view(-1, self.memory.shape[2]).index_select(0, changed).square().sum(1)
        self.scale.view(-1).index_copy_(0, changed, squares.clamp_min(1e-6).rsqrt())
        self.penalty.view(-1).index_copy_(0, changed, torch.where(squares > 0, 0, -torch.inf).to(squares))
        if len(changed):
            self.extent = max(self.extent, int((changed % self.slots).max()) + 1)

    def nearest(
        self, queries: Float[Tensor, "batch heads width"], count: int
    ) -> Int[Tensor, "batch heads found"]:
        queries, end = unit(queries), min(self.slots, max(self.extent, count))
        if end <= BLOCK:
            return self._scores(queries, 0, end).topk(count, dim=2).indices
        best, found = [], []
        for start in range(0, end, BLOCK):
            scores = self._scores(queries, start, min(end, start + BLOCK))
            some = min(count, scores.shape[2])
            if scores.shape[2] % GROUP == 0 and scores.shape[2] >= count * GROUP:
                groups = scores.unflatten(2, (-1, GROUP))
                which = groups.amax(3).topk(count, dim=2).indices
                groups = groups.gather(2, which.unsqueeze(3).expand(-1, -1, -1, GROUP)).flatten(2)
                value, place = groups.topk(some, dim=2)
                place = which.gather(2, place // GROUP) * GROUP + place % GROUP
            else:
                value, place = scores.topk(some, dim=2)
            best.append(value)
            found.append(place + start)
        order = torch.cat(best, dim=2).topk(count, dim=2).indices
        return torch.cat(found, dim=2).gather(2, order)

    def _scores(self, queries: Tensor, start: int, end: int) -> Tensor:
        scores = queries @ self.memory[:, start:end].mT
        scale, penalty = self.scale[:, None, start:end], self.penalty[:, None, start:end]
        return torch.addcmul(penalty, scores, scale)
