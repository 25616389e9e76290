"""Sparse access memory: a memory with heads whose steps touch few slots, however many there are.

Rae, Hunt, Harley, Danihelka, Senior, Wayne, Graves & Lillicrap 2016, "Scaling Memory-Augmented Neural
Networks with Sparse Reads and Writes", section 3.
"""

from typing import NamedTuple, final

from jaxtyping import Float, Int
from torch import Tensor

from mnemos.memories.sparse_access import Along, Interface, LastRead, Links, SparseAccess
from mnemos.ops.sparse_access import slot_weights


class SAMState(NamedTuple):
    memory: Float[Tensor, "batch slots width"]  # M_t
    last_access: Int[Tensor, "batch slots"]  # the step, times the number of slots, plus the slot: all differ
    read: LastRead


@final
class SAM(SparseAccess):
    """Reads its most similar slots, writes to those it read last or to the least recently accessed one.

    Every head has a word a to write, a query q with its strength β, and two gates; I^U is the least recently
    accessed slot, which is emptied before, and another one for every head. Eq. 1 to 6:

        w^W_t = α (γ w^R_(t-1) + (1 - γ) I^U_t),  M_t = (1 - I^U_t) M_(t-1) + w^W_t aᵀ
        r_t = Σ w^R_t(s_i) M_t(s_i),  w^R_t = softmax over the `top_k` largest of β cos(q, M_t)

    An empty slot is not found: where fewer than `top_k` hold something, fewer are read.

    A call over many steps copies the slots once, and then works in place: time a step, beyond the search, and
    storage for the backward pass do not depend on the number of slots. A call of one step still copies, since
    the state it was given stays as it is; so give it stretches. `naive` makes a new table at every step.

    Args:
        width: of a slot, a word and a query; the output holds `heads` of these.
        heads: each of them reads and writes.
        top_k: K, slots that a head reads.
        probes: lists of an index in which a head looks for them, of about 2 √slots; None compares with every
            slot. It needs faiss, and is for hundreds of thousands of slots. `naive` compares with every slot.
    """

    def __init__(
        self,
        input_size: int,
        slots: int = 1024,
        width: int = 32,
        heads: int = 4,
        top_k: int = 4,
        probes: int | None = None,
    ) -> None:
        super().__init__(input_size, slots, width, heads, top_k, probes)

    def initial_state(self, batch_size: int) -> SAMState:
        """Nothing written and nothing read; it takes no room."""
        return SAMState(*self.empty(batch_size))

    def link(
        self, links: Links, slots: Tensor, weights: Tensor, read: LastRead, *_: object, **__: object
    ) -> tuple[Links, Along | None]:
        return links, None

    def attend(
        self, given: Interface, rows: Tensor, slots: Tensor, along: Along | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights = slot_weights(given.queries, given.strengths, rows)
        return (weights.unsqueeze(2) @ rows).squeeze(2), slots, weights
