"""The memory of memory-augmented neural networks: written where it was read last, or used least.

Santoro, Bartunov, Botvinick, Wierstra & Lillicrap 2016, "Meta-Learning with Memory-Augmented Neural
Networks", section 3.2.
"""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mnemos.memories.base import check_sizes
from mnemos.memories.stepped import SteppedMemory, interface
from mnemos.ops.content import content_weights
from mnemos.ops.least_used import faded_usage, least_used_weights

# What a head begins with, before its controller says anything. With zeros every vector would be written half
# over what was read last, and a read be the mean of all slots: what was seen once would be blurred at once.
STRENGTH, GATE = 5.0, -4.0


class MANNState(NamedTuple):
    """What was last read, and how much each slot has been used."""

    memory: Float[Tensor, "batch slots width"]  # M_t
    read_weights: Float[Tensor, "batch heads slots"]  # w^r_t
    usage: Float[Tensor, "batch slots"]  # w^u_t, without a gradient


@final
class MANN(SteppedMemory):
    """Least recently used access: finds by content, writes without any addressing of its own.

    The controller gives every head a key k, a vector a to write, a strength β and a gate α. A head writes to
    where it read last, or to the least used slot, which is emptied first; then it reads by its key:

        w^w_t = σ(α) w^r_(t-1) + (1 - σ(α)) w^lu_(t-1),  M_t = (1 - w^lu) M_(t-1) + w^w_t aᵀ
        w^r_t = softmax(β K(k, M_t)),  r_t = w^r_t M_t,  w^u_t = γ w^u_(t-1) + w^r_t + w^w_t

    The paper writes the key, a = k, and has no strength. But a head that writes its key finds, by that key,
    what it has just written. And without a strength the weights are the softmax of cosines, which gives no
    slot more than e² times what any other gets: of 128 slots, nearly all of a read is what was not asked for.

    Args:
        width: of a slot, a key and a read vector; the output holds `heads` of these.
        heads: each of them reads and writes.
        decay: γ, from 0 to 1, how slowly use is forgotten.
        writes_keys: whether a head writes its key, as in the paper, and no vector of its own.
    """

    def __init__(
        self,
        input_size: int,
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.95,
        *,
        writes_keys: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, slots=slots, width=width, heads=heads)
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie between 0 and 1, not {decay}")
        self.input_size, self.output_size = input_size, heads * width
        self.slots, self.width, self.heads = slots, width, heads
        self.decay, self.writes_keys = decay, writes_keys
        self._vectors = width if writes_keys else 2 * width  # k, and a where it is another
        beginning = torch.tensor([0.0] * self._vectors + [STRENGTH, GATE]).repeat(heads)
        self.interface = interface(input_size, len(beginning), beginning)

    def initial_state(self, batch_size: int) -> MANNState:
        """An empty memory that nothing was read from: all slots are equal, and the first is taken first."""
        new = self._origin.new_zeros
        return MANNState(
            new(batch_size, self.slots, self.width),
            new(batch_size, self.heads, self.slots),
            new(batch_size, self.slots),
        )

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        return self.interface(inputs)

    def step(
        self, prepared: Float[Tensor, "batch prepared"], state: MANNState
    ) -> tuple[Float[Tensor, "batch output"], MANNState]:
        parts = prepared.to(state.memory).unflatten(-1, (self.heads, -1))
        vectors, strengths, gates = parts.split([self._vectors, 1, 1], dim=-1)
        keys, additions = vectors[..., : self.width], vectors[..., -self.width :]
        with torch.autocast(keys.device.type, enabled=False):  # half a mantissa does not tell slots apart
            least = least_used_weights(state.usage, self.heads)
            writes = least.lerp(state.read_weights, gates.sigmoid())
            kept = 1 - least.amax(1).unsqueeze(-1)
            memory = torch.baddbmm(kept * state.memory, writes.mT, additions)
            reads = content_weights(keys, 1 + functional.softplus(strengths).squeeze(-1), memory)
            usage = faded_usage(state.usage, reads.detach(), writes.detach(), self.decay)
            return (reads @ memory).flatten(1), MANNState(memory, reads, usage)
