"""Finding the slots nearest to a query in a table that changes a little at every step."""

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.memories.slot_bounds import GROUP, SlotBounds, products_are_exact
from mnemos.ops.delta_rule import unit

MANY = 32_768  # slots that are compared at once; more are worth a rough look first


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
        """The best slots of each query, best first; where fewer are found, empty ones or -1."""


@final
class ExactSearch(SlotSearch):
    """Compares with every slot up to the last that was ever written.

    Many slots are compared roughly at first, in a quarter of the time that it takes to read them. A group of
    slots whose bound is below the `count`-th best cosine found so far cannot hold a better one; the others,
    about twenty of a million slots' sixteen thousand, are compared as they are. Where too many groups come
    into question, as when the memory holds the same thing over and over, all slots are.
    """

    def build(self, memory: Float[Tensor, "batch slots width"]) -> None:
        self.memory = memory
        self.slots = memory.shape[1]
        squares = torch.linalg.vector_norm(memory, dim=2).square_()
        self.scale = squares.clamp_min(1e-6).rsqrt_()
        self.penalty = torch.zeros_like(squares).masked_fill_(squares == 0, -torch.inf)
        filled = (squares > 0).any(0).nonzero()
        self.extent = int(filled[-1]) + 1 if len(filled) else 0
        self.bounds = SlotBounds(memory) if self.slots > MANY and memory.device.type == "cpu" else None

    def update(self, changed: Int[Tensor, " changed"]) -> None:
        contents = self.memory.view(-1, self.memory.shape[2]).index_select(0, changed)
        squares = contents.square().sum(1)
        self.scale.view(-1).index_copy_(0, changed, squares.clamp_min(1e-6).rsqrt())
        self.penalty.view(-1).index_copy_(0, changed, torch.where(squares > 0, 0, -torch.inf).to(squares))
        if len(changed):
            self.extent = max(self.extent, int((changed % self.slots).max()) + 1)
        if self.bounds is not None:
            self.bounds.update(changed, contents)

    def nearest(
        self, queries: Float[Tensor, "batch heads width"], count: int
    ) -> Int[Tensor, "batch heads found"]:
        queries, end = unit(queries), min(self.slots, max(self.extent, count))
        if end > MANY and self.bounds is not None and products_are_exact(queries.shape[2], queries.shape[1]):
            found = self._in_groups(queries, count, self.bounds.of_groups(queries, end))
            if found is not None:
                return found
        return self._everywhere(queries, count, end)

    def _in_groups(
        self,
        queries: Float[Tensor, "batch heads width"],
        count: int,
        bounds: Float[Tensor, "batch heads groups"],
    ) -> Int[Tensor, "batch heads found"] | None:
        """The best slots, unless too many groups can hold them."""
        some, most = 8 * count, bounds.shape[2] // 8
        start = self.slots * torch.arange(len(queries), device=queries.device).view(-1, 1, 1)
        while some <= most:
            groups = bounds.topk(some, dim=2).indices
            slots = (GROUP * groups.unsqueeze(3) + torch.arange(GROUP, device=groups.device)).flatten(2)
            place = (slots.clamp_max(self.slots - 1) + start).flatten()
            rows = self.memory.view(-1, self.memory.shape[2]).index_select(0, place)
            scores = (rows.view(*slots.shape, -1) * queries.unsqueeze(2)).sum(3)
            scale, penalty = (x.view(-1).index_select(0, place) for x in (self.scale, self.penalty))
            scores = torch.addcmul(penalty.view_as(scores), scores, scale.view_as(scores))
            best = scores.masked_fill_(slots >= self.slots, -torch.inf).topk(count, dim=2)
            needed = int((bounds >= best.values[:, :, -1:]).sum(2).max())
            if needed <= some:
                return slots.gather(2, best.indices)
            some = needed
        return None

    def _everywhere(
        self, queries: Float[Tensor, "batch heads width"], count: int, end: int
    ) -> Int[Tensor, "batch heads found"]:
        best, found = [], []
        for start in range(0, end, MANY):
            some = slice(start, min(end, start + MANY))
            scores = queries @ self.memory[:, some].mT
            scores = torch.addcmul(self.penalty[:, None, some], scores, self.scale[:, None, some])
            value, place = scores.topk(min(count, scores.shape[2]), dim=2)
            best.append(value)
            found.append(place + start)
        order = torch.cat(best, dim=2).topk(count, dim=2).indices
        return torch.cat(found, dim=2).gather(2, order)


@final
class IndexedSearch(SlotSearch):
    """Looks through a few lists of an inverted file (faiss), exactly within them.

    Rae et al. 2016 use k-d trees or locality-sensitive hashing, built anew now and then. Here a slot belongs
    to the list of the nearest of fixed random directions, which know nothing of the data: so nothing is ever
    trained or built anew within a stretch, a slot that changes moves to another list, and an empty one is in
    none. A slot that lies in a list that is not looked through is not found.

    Args:
        probes: lists that are looked through for a query; of about 2 √slots in all.
    """

    def __init__(self, probes: int) -> None:
        self.probes = probes

    def build(self, memory: Float[Tensor, "batch slots width"]) -> None:
        self.memory, self.slots = memory, memory.shape[1]
        self.indexes = [self._index(memory.shape[2]) for _ in memory]
        every = torch.arange(self.slots, device=memory.device)
        for row, index in enumerate(self.indexes):
            filled = every[(memory[row] != 0).any(1)]
            if len(filled):
                index.add_with_ids(unit(memory[row, filled]).float().cpu().numpy(), filled.cpu().numpy())

    def update(self, changed: Int[Tensor, " changed"]) -> None:
        faiss = _faiss()
        changed = changed.unique()
        rows = changed.div(self.slots, rounding_mode="floor")
        for row, index in enumerate(self.indexes):
            slots = changed[rows == row] % self.slots
            index.remove_ids(faiss.IDSelectorArray(slots.cpu().numpy()))
            contents = self.memory[row, slots]
            filled = (contents != 0).any(1)
            if filled.any():
                index.add_with_ids(unit(contents[filled]).float().cpu().numpy(), slots[filled].cpu().numpy())

    def nearest(
        self, queries: Float[Tensor, "batch heads width"], count: int
    ) -> Int[Tensor, "batch heads found"]:
        asked = unit(queries).float().cpu().numpy()
        found = [index.search(x, count)[1] for index, x in zip(self.indexes, asked, strict=True)]
        return torch.stack([torch.from_numpy(x) for x in found]).to(queries.device)

    def _index(self, width: int) -> Any:
        faiss = _faiss()
        lists = max(1, int(2 * self.slots**0.5))
        directions = torch.randn(lists, width, generator=torch.Generator().manual_seed(0))
        quantizer = faiss.IndexFlatIP(width)
        quantizer.add(unit(directions).numpy())
        index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        index.is_trained, index.nprobe = True, min(lists, self.probes)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return index


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('an index over slots needs faiss: pip install "mnemos[index]"') from error
    return faiss
