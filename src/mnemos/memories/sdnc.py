"""The sparse Differentiable Neural Computer: sparse access, and links in the order of writing.

Rae, Hunt, Harley, Danihelka, Senior, Wayne, Graves & Lillicrap 2016, "Scaling Memory-Augmented Neural
Networks with Sparse Reads and Writes", supplement D.
"""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.memories.base import check_sizes
from mnemos.memories.sparse_access import Along, Interface, LastRead, Links, SparseAccess
from mnemos.ops.sparse_access import slot_weights
from mnemos.ops.sparse_linkage import SparseLinks, followed, link_, links_after, merged


class SDNCState(NamedTuple):
    memory: Float[Tensor, "batch slots width"]  # M_t
    last_access: Int[Tensor, "batch slots"]  # the step, times the number of slots, plus the slot: all differ
    read: LastRead
    links: SparseLinks  # N_t, P_t and p_t


@final
class SDNC(SparseAccess):
    """`SAM`, whose heads may also read what was written after, or before, what they read last.

    It writes as `SAM` does, to the slots it read last or to the least recently accessed one. With c the
    weights of its most similar slots, f and b what P and N, the links to what was written later and earlier,
    make of the last reads, and modes π that sum to 1:

        w^R_t = the `top_k` greatest of  π_1 c + π_2 f + π_3 b,  r_t = Σ w^R_t(s_i) M_t(s_i)

    each of the three being cut to its `top_k` greatest before. No gradient goes through the links, but one
    goes through the weights of the last reads, along them. Links know in 256ths how much was written, so that
    this is the derivative and not one with a part left out. What several heads write in one step is one event
    to the links: of the order of single words they tell most with one head.

    As with `SAM` a call over many steps copies slots and links once and then works in place, and time and
    storage do not depend on the number of slots; the links take `12 * 2 * links` bytes a slot.

    Args:
        width: of a slot, a word and a query; the output holds `heads` of these.
        heads: each of them reads and writes.
        top_k: K, slots that a head reads.
        links: K_L, links that are kept from a slot, each way.
        probes: lists of an index in which a head looks for similar slots, of about 2 √slots; None compares
            with every slot. It needs faiss. `naive` compares with every slot.
    """

    def __init__(
        self,
        input_size: int,
        slots: int = 1024,
        width: int = 32,
        heads: int = 1,
        top_k: int = 4,
        links: int = 8,
        probes: int | None = None,
    ) -> None:
        check_sizes(links=links)
        super().__init__(input_size, slots, width, heads, top_k, probes, numbers=3)
        self.links = links

    def initial_state(self, batch_size: int) -> SDNCState:
        """Nothing written, nothing read and no links; it takes no room."""
        shape = (batch_size, self.slots, self.links)
        slot = self._origin.new_zeros(1, 1, 1, dtype=torch.int64).expand(shape)
        weight = self._origin.new_zeros(1, 1, 1, dtype=torch.int32).expand(shape)
        links = SparseLinks(slot, weight, slot, weight, slot[:, 0], weight[:, 0])
        return SDNCState(*self.empty(batch_size), links)

    def link(
        self,
        links: Links,
        slots: Int[Tensor, "batch written"],
        weights: Float[Tensor, "batch written"],
        read: LastRead,
        known: Bool[Tensor, " batch"] | None = None,
        *,
        in_place: bool = False,
    ) -> tuple[Links, Along | None]:
        (before,) = links
        after = link_(before, slots, weights, known) if in_place else links_after(before, slots, weights)
        ways = (
            followed(after.later_slots, after.later_weights, read.slots, read.weights),
            followed(after.earlier_slots, after.earlier_weights, read.slots, read.weights),
        )
        return (after,), Along(*(torch.cat(parts, dim=2) for parts in zip(*ways, strict=True)))

    def attend(
        self, given: Interface, rows: Tensor, slots: Tensor, along: Along | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert along is not None
        similar = slot_weights(given.queries, given.strengths, rows[:, :, : self.found])
        ways = torch.cat([similar, along.weights], dim=2)
        ways = ways.unflatten(2, (3, -1)) * given.more.softmax(2).unsqueeze(3)
        slots, weights, places = merged(slots, ways.flatten(2), self.found)
        rows = rows.gather(2, places.unsqueeze(3).expand(-1, -1, -1, self.width))
        return (weights.unsqueeze(2) @ rows).squeeze(2), slots, weights
