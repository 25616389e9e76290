"""Replay in proportion to surprise: what was answered worst comes back most."""

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

BITS = 5
BLOCK = 1 << BITS  # weights that have one sum
BELOW_ONE = 1 - 2.0**-52  # this part of a number is less than the number


@final
class SumTree:
    """Weights, place by place, from which to draw in proportion to them, and which change a few at a time.

    The sum tree of Schaul et al. 2016, appendix B.2.1, in two levels instead of log2 of their number: sums of
    32 weights, and the cumulative sum of those, made when something is drawn. For a hundred thousand weights
    that is 3,000 additions, which take less time than calling torch for further levels would. A sum is taken
    anew when one of its weights changes, never adjusted by a difference: rounding does not pile up.
    """

    def __init__(self) -> None:
        self._count = 0
        self._weights = torch.zeros(0, BLOCK, dtype=torch.float64)
        self._sums = torch.zeros(0, dtype=torch.float64)
        self._bounds = torch.zeros(1, dtype=torch.float64)  # 0, and the cumulative sum of the sums
        self._summed = True  # whether the bounds are those of the sums

    @property
    def weights(self) -> Float64[Tensor, " places"]:
        """Of every place; to be changed by `put` alone."""
        return self._weights.view(-1)[: self._count]

    def resize(self, count: int) -> None:
        """Room for so many places: new ones have no weight, and the weights of those that go are lost."""
        blocks = -(-count // BLOCK)
        if blocks > len(self._sums):
            more = max(blocks, 2 * len(self._sums)) - len(self._sums)
            self._weights = torch.cat([self._weights, self._weights.new_zeros(more, BLOCK)])
            self._sums = torch.cat([self._sums, self._sums.new_zeros(more)])
            self._bounds, self._summed = self._sums.new_zeros(len(self._sums) + 1), False
        if count < self._count:
            self.put(torch.arange(count, self._count), torch.zeros(1, dtype=torch.float64))
        self._count = count

    def put(self, places: Int64[Tensor, " changed"], weights: Float64[Tensor, " weights"]) -> None:
        """Weights of 0 or more for a few places, one for each or one for all."""
        self._weights.view(-1)[places] = weights
        if len(places) < len(self._sums):
            blocks = places >> BITS
            self._sums[blocks] = self._weights.index_select(0, blocks).sum(1)
        else:
            torch.sum(self._weights, 1, out=self._sums)
        self._summed = False

    def find(self, fractions: Float64[Tensor, " rows"]) -> Int64[Tensor, " rows"]:
        """The places where these fractions of the whole weight lie, never one without weight.

        Its naive twin is a search in the cumulative sum of all weights, `selection.found`.

        Args:
            fractions: 0 to 1.

        Raises:
            ValueError: there is no weight.
        """
        if not self._summed:
            torch.cumsum(self._sums, 0, out=self._bounds[1:])
            self._summed = True
        total = float(self._bounds[-1])
        if not total > 0:
            raise ValueError("no experience has a priority above 0")
        spots = fractions.clamp(0, BELOW_ONE).mul_(total)  # below the total, however it is rounded
        # The first sum above a spot is of a block with weight, since the one before is not above it.
        # By numpy's search, which is twice as fast as torch's where spots ascend.
        block = torch.from_numpy(self._bounds.numpy()[1:].searchsorted(spots.numpy(), side="right"))
        within = self._weights.index_select(0, block).cumsum(1)
        rest = spots.sub_(self._bounds.index_select(0, block)).unsqueeze(1)
        place = torch.searchsorted(within, rest, right=True)
        if int(place.max()) == BLOCK:  # the block's weights, rounded, do not reach as far as the bound
            place = place.minimum(torch.searchsorted(within, within[:, -1:].contiguous()))
        return torch.add(place.squeeze(1), block, alpha=BLOCK)


@final
class Prioritised:
    """A selection that learns how surprising experiences are: prioritised experience replay.

        priorities = Prioritised()
        batch = episodes.sample(256, priorities)
        surprise = ...  # the loss of each, or its temporal-difference error
        (priorities.corrections(batch.ids, 0.4) * surprise).mean().backward()
        priorities.update(batch.ids, surprise.abs())

    Schaul et al. 2016, "Prioritized Experience Replay", eq. 1: P(i) = p_i^α / Σ_k p_k^α, in the proportional
    variant p = surprise + ε. What is new has the greatest priority so far, until it was drawn and its
    surprise is known. An experience keeps its priority for as long as it is in its store; one object serves
    one `Episodes`.

    Args:
        exponent: α, 0 or more; 0 is uniform.
        floor: ε, 0 or more: what does not surprise is drawn now and then if it is above 0.
    """

    def __init__(self, exponent: float = 0.6, floor: float = 1e-6) -> None:
        for name, value in (("exponent", exponent), ("floor", floor)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, not {value}")
        self.exponent, self.floor = exponent, floor
        self.greatest = 1.0  # priority so far
        self._ids = torch.empty(0, dtype=torch.int64)  # place by place, as of the last draw
        self._tree = SumTree()  # of p^α
        self._version = -1
        self._drawn = self._ids, self._ids  # ids and places of the last draw
        self._parts = torch.empty(0, dtype=torch.float64)  # of the whole: one is drawn from each
        self._sorted: tuple[Tensor, Tensor] | None = None  # ids, ascending, and their places

    @property
    def name(self) -> str:
        return f"prioritised({self.exponent})"

    def draw(
        self,
        ids: Int64[Tensor, " experiences"],
        version: int,
        rows: int,
        generator: torch.Generator,
    ) -> Int64[Tensor, " rows"]:
        """Places in proportion to priority, with replacement; `Episodes.sample` calls it.

        One is drawn from each of `rows` equal parts of the whole priority, in order (appendix B.2.1): shares
        vary less from batch to batch than those of independent draws, and neighbours lie near in memory.

        Args:
            ids: what lies where.
            version: another number whenever that changes.

        Raises:
            ValueError: nothing has a priority above 0.
        """
        if version != self._version:
            self._follow(ids)
            self._version = version
        if len(self._parts) != rows:
            self._parts = torch.arange(rows, dtype=torch.float64) / rows
        lots = torch.rand(rows, dtype=torch.float64, generator=generator)
        places = self._tree.find(torch.add(self._parts, lots, alpha=1 / rows))
        self._drawn = ids.index_select(0, places), places
        return places

    def update(self, ids: Int[Tensor, " rows"], surprise: Float[Tensor, " rows"]) -> None:
        """Says how surprising experiences were; those that are gone are passed over.

        Args:
            surprise: 0 or more and finite, of each; of an experience that is given twice, one counts.

        Raises:
            ValueError: a number that is not. KeyError: an experience that was written after the last draw.
        """
        if ids.shape != surprise.shape:
            raise ValueError(f"surprise must be of {len(ids)} experiences, not {len(surprise)}")
        if not len(ids):
            return
        priorities = surprise.detach().to("cpu", torch.float64) + self.floor
        least, greatest = (float(one) for one in priorities.aminmax())
        if not self.floor <= least <= greatest < math.inf:
            raise ValueError("surprise must be 0 or more, and finite")
        there, places = self._places(ids)
        known = priorities if there is None else priorities[there]
        self._tree.put(places, known**self.exponent)
        self.greatest = max(self.greatest, greatest)

    def corrections(self, ids: Int[Tensor, " rows"], exponent: float) -> Float64[Tensor, " rows"]:
        """Importance weights of experiences that were drawn: (N · P(i))^-β over the greatest of them.

        Schaul et al. 2016, section 3.4. With β = 1 their weighted mean is that of uniform replay.

        Args:
            exponent: β, 0 to 1; the paper's grows from 0.4 to 1 while it learns.

        Raises:
            KeyError: one that is not there. ValueError: one without a priority, which cannot have been drawn.
        """
        _, places = self._places(ids)
        if len(places) != len(ids):
            raise KeyError("corrections are for experiences that are there")
        if not len(ids):
            return torch.ones(0, dtype=torch.float64)
        weights = self._tree.weights.index_select(0, places)
        least = weights.min()
        if not float(least) > 0:
            raise ValueError("corrections are for experiences that were drawn: one of these has priority 0")
        return (least / weights).pow_(exponent)  # N and the sum of all priorities cancel

    def state_dict(self) -> dict[str, Any]:
        return {"ids": self._ids.clone(), "weights": self._tree.weights.clone(), "greatest": self.greatest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with the priorities of another process, on the same store."""
        self._ids, self.greatest, self._version, self._sorted = (
            state["ids"].clone(),
            state["greatest"],
            -1,
            None,
        )
        self._drawn = self._ids[:0], self._ids[:0]
        self._tree = SumTree()
        self._tree.resize(len(self._ids))
        self._tree.put(torch.arange(len(self._ids)), state["weights"])

    def _follow(self, ids: Int64[Tensor, " experiences"]) -> None:
        """Experiences came, went or moved: their priorities go with them."""
        both = min(len(ids), len(self._ids))
        moved = (ids[:both] != self._ids[:both]).nonzero().squeeze(1)
        filled = torch.cat([moved, torch.arange(both, len(ids))])
        left = torch.cat([moved, torch.arange(both, len(self._ids))])
        weights = torch.full((len(filled),), self.greatest**self.exponent, dtype=torch.float64)
        if len(left) and len(filled):
            departed, order = self._ids[left].sort()
            found = torch.searchsorted(departed, ids[filled]).clamp(max=len(left) - 1)
            before = self._tree.weights[left][order[found]]
            weights = torch.where(departed[found] == ids[filled], before, weights)
        self._tree.resize(len(ids))
        self._tree.put(filled, weights)
        self._ids, self._sorted = ids.clone(), None

    def _places(self, ids: Int[Tensor, " rows"]) -> tuple[Tensor | None, Tensor]:
        """Which of the ids are there, None if all are, and where."""
        if torch.equal(ids, self._drawn[0]):
            return None, self._drawn[1]
        if self._sorted is None:
            self._sorted = self._ids.sort()
        ascending, order = self._sorted
        if len(ids) and (not len(ascending) or ids.max() > ascending[-1]):
            raise KeyError(
                f"the experience {int(ids.max())} was never there when this was drawn from: "
                "what is new has the greatest priority until it was drawn"
            )
        found = torch.searchsorted(ascending, ids)
        there = ascending[found] == ids
        return there, order[found[there]]
