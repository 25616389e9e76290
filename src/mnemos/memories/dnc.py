"""The Differentiable Neural Computer: slots that are allocated, linked in the order of writing, and freed.

Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", Nature 538.
"""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mnemos.memories.base import check_sizes
from mnemos.memories.stepped import SteppedMemory, interface
from mnemos.ops import content, linkage
from mnemos.ops.allocation import allocations, retention, usage_after
from mnemos.ops.dnc import dnc_step
from mnemos.ops.erase_add import erase_add, read
from mnemos.ops.linkage import precedence_after, sharpened


class DNCState(NamedTuple):
    memory: Float[Tensor, "batch slots width"]  # M_t
    usage: Float[Tensor, "batch slots"]  # u_t, 0 (free) to 1
    links: Float[Tensor, "batch write_heads slots slots"]  # L_t: [i, j], i was written next after j
    precedence: Float[Tensor, "batch write_heads slots"]  # p_t, how far a slot was the last one written
    read_weights: Float[Tensor, "batch read_heads slots"]  # w^r_t
    write_weights: Float[Tensor, "batch write_heads slots"]  # w^w_t


class _Interface(NamedTuple):
    """What the controller asks of one step, each part brought into its range."""

    read_keys: Tensor  # k^r (batch, read_heads, width)
    write_keys: Tensor  # k^w (batch, write_heads, width)
    added: Tensor  # v (batch, write_heads, width)
    read_strengths: Tensor  # β^r, at least 1 (batch, read_heads)
    write_strengths: Tensor  # β^w
    sharpness: Tensor  # s, at least 1 (batch, directions, read_heads); empty unless links are sharpened
    erased: Tensor  # e, 0 to 1 (batch, write_heads, width)
    read_masks: Tensor  # m, 0 to 1, like the keys; empty unless content is masked
    write_masks: Tensor
    free_gates: Tensor  # f (batch, read_heads)
    allocation_gates: Tensor  # g^a (batch, write_heads)
    write_gates: Tensor  # g^w
    read_modes: Tensor  # π, sums to 1 (batch, 1 + directions, read_heads): content, forward, backward


@final
class DNC(SteppedMemory):
    """Memory slots of which a step writes some and then reads some: by content, or in the order of writing.

    A step is, with ξ the interface that a linear map of the input gives:

        usage        u = (u + w^w - u w^w) Π_r (1 - f_r w^r_r)       of the last step's weights
        write        w^w = g^w (g^a allocation(u) + (1 - g^a) C(M, k^w, β^w)),  M = M (1 - w^w eᵀ) + w^w vᵀ
        links        L[i, j] = (1 - w_i - w_j) L[i, j] + w_i p_j,  then  p = (1 - Σ w^w) p + w^w
        read         w^r = π_1 C(M, k^r, β^r) + π_2 L w^r + π_3 Lᵀ w^r,  r = w^r M

    The output are the vectors r of all heads, side by side. State and arithmetic have float32 at least.

    The gradient of the usage goes through the write weights, as the equations have it; DeepMind's code stops
    it there. The last three arguments are the changes of Csordas & Schmidhuber 2019, "Improving
    Differentiable Neural Computers Through Memory Masking, De-allocation, and Link Distribution Sharpness
    Control", each by itself: with `masked_content` and `erase_freed` it is their DNC-MD, with all three their
    DNC-MDS.

    Args:
        slots, width: N and W, the memory's rows and columns. Time and space grow with the slots squared.
        read_heads, write_heads: R and how many vectors a step writes; each write head has links of its own.
        masked_content: keys come with a mask of what of them is compared, so that a slot can be found by a
            part of what it holds.
        erase_freed: what is freed is erased too: the memory is multiplied by what its slots retain. Without,
            content addressing goes on finding what was freed.
        sharpen_links: where a read follows the links, the weights are raised to a power that the controller
            sets, against the blur of every step that wrote several slots.
    """

    def __init__(
        self,
        input_size: int,
        slots: int,
        width: int,
        read_heads: int = 1,
        write_heads: int = 1,
        *,
        masked_content: bool = False,
        erase_freed: bool = False,
        sharpen_links: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(
            input_size=input_size, slots=slots, width=width, read_heads=read_heads, write_heads=write_heads
        )
        self.input_size, self.output_size = input_size, read_heads * width
        self.slots, self.width = slots, width
        self.read_heads, self.write_heads = read_heads, write_heads
        self.masked_content, self.erase_freed = masked_content, erase_freed
        self.sharpen_links = sharpen_links
        self.naive = False
        self._plain = write_heads == 1 and not (masked_content or erase_freed or sharpen_links)
        directions = 2 * write_heads * read_heads
        # In the order of `_Interface`, by what brings them into their range.
        self._vectors = [read_heads * width, write_heads * width, write_heads * width]
        self._powers = [read_heads, write_heads, directions if sharpen_links else 0]
        masks = [read_heads * width, write_heads * width] if masked_content else [0, 0]
        self._gates = [write_heads * width, *masks, read_heads, write_heads, write_heads]
        self._kinds = [sum(self._vectors), sum(self._powers), sum(self._gates), read_heads + directions]
        self.interface = interface(input_size, sum(self._kinds))  # ξ

    def initial_state(self, batch_size: int) -> DNCState:
        """Slots of zeros, all of them free, never written and never read."""
        readers, writers = (self.read_heads, self.slots), (self.write_heads, self.slots)
        shapes = {
            "memory": (self.slots, self.width),
            "usage": (self.slots,),
            "links": (*writers, self.slots),
            "precedence": writers,
            "read_weights": readers,
            "write_weights": writers,
        }
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        zeros = {
            name: self._origin.new_zeros(batch_size, *shape, dtype=dtype) for name, shape in shapes.items()
        }
        return DNCState(**zeros)

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        """The interface ξ before anything is brought into its range."""
        return self.interface(inputs)

    def step(
        self, prepared: Float[Tensor, "batch prepared"], state: DNCState
    ) -> tuple[Float[Tensor, "batch output"], DNCState]:
        with torch.autocast(prepared.device.type, enabled=False):  # weights that sum to one, powers of usages
            interface = prepared.to(state.memory.dtype)
            if self._plain and not self.naive:
                reads, *after = dnc_step(interface, state)
                return reads, DNCState(*after)
            asked = self._asked(interface)
            state = self._write(asked, state)
            state = self._read(asked, state)
            return read(state.memory, state.read_weights).flatten(1), state

    def _asked(self, interface: Tensor) -> _Interface:
        vectors, powers, gates, modes = interface.split(self._kinds, dim=-1)
        powers, gates = 1 + functional.softplus(powers), gates.sigmoid()
        read_strengths, write_strengths, sharpness = powers.split(self._powers, dim=-1)
        erased, read_masks, write_masks, free, allocating, writing = gates.split(self._gates, dim=-1)
        read_keys, write_keys, added = vectors.split(self._vectors, dim=-1)
        wide = (read_keys, write_keys, added, erased, read_masks, write_masks)
        read_keys, write_keys, added, erased, read_masks, write_masks = (
            x.unflatten(1, (-1, self.width)) for x in wide
        )
        return _Interface(
            read_keys=read_keys,
            write_keys=write_keys,
            added=added,
            read_strengths=read_strengths,
            write_strengths=write_strengths,
            sharpness=sharpness.unflatten(1, (-1, self.read_heads)),
            erased=erased,
            read_masks=read_masks,
            write_masks=write_masks,
            free_gates=free,
            allocation_gates=allocating,
            write_gates=writing,
            read_modes=modes.unflatten(1, (-1, self.read_heads)).softmax(1),
        )

    def _write(self, asked: _Interface, state: DNCState) -> DNCState:
        retained = retention(asked.free_gates, state.read_weights)
        usage = usage_after(state.usage, state.write_weights, retained)
        found = self._found(asked.write_keys, asked.write_strengths, asked.write_masks, state.memory)
        gates = asked.write_gates * asked.allocation_gates
        free = allocations(usage, gates)
        weights = (asked.write_gates - gates).unsqueeze(-1) * found + gates.unsqueeze(-1) * free
        memory = state.memory * retained.unsqueeze(-1) if self.erase_freed else state.memory
        memory = erase_add(memory, weights, asked.erased, asked.added)
        return state._replace(memory=memory, usage=usage, write_weights=weights)

    def _read(self, asked: _Interface, state: DNCState) -> DNCState:
        link = linkage.linked_naive if self.naive else linkage.linked
        links, *directions = link(state.links, state.precedence, state.write_weights, state.read_weights)
        found = self._found(asked.read_keys, asked.read_strengths, asked.read_masks, state.memory)
        along = torch.cat(directions, dim=1)
        along = sharpened(along, asked.sharpness) if self.sharpen_links else along
        weights = (asked.read_modes.unsqueeze(-1) * torch.cat([found.unsqueeze(1), along], dim=1)).sum(1)
        precedence = precedence_after(state.precedence, state.write_weights)
        return state._replace(links=links, precedence=precedence, read_weights=weights)

    def _found(self, keys: Tensor, strengths: Tensor, masks: Tensor, memory: Tensor) -> Tensor:
        """C(M, k, β): the weights of content addressing."""
        if self.masked_content:
            return content.masked_content_weights(keys, strengths, masks, memory)
        find = content.content_weights_naive if self.naive else content.content_weights
        return find(keys, strengths, memory)
