"""A controller beside a memory, as in the Neural Turing Machine and all that came after it."""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mnemos.memories.stepped import StateByState, SteppedMemory, Stretch


class MemoryAugmentedState(NamedTuple):
    """What a `MemoryAugmented` remembers."""

    controller: Any  # the controller's own state; an empty tuple where it has none
    memory: Any  # the memory's own state
    reads: Float[Tensor, "batch width"]  # r_(t-1), what the memory answered at the last real step


@final
class MemoryAugmented(SteppedMemory):
    """A controller that sees its input and what memory answered one step before, and asks memory again.

    Graves, Wayne & Danihelka 2014, "Neural Turing Machines"; Graves et al. 2016, supplement. With x the input
    and h what the controller makes of it, memory answers r and the network y:

        h_t = controller([x_t, r_(t-1)]),  r_t = memory(h_t),  y_t = W [h_t, r_t]

    The reads of the last step reach the controller within a call and across calls alike, so that a sequence
    may be given in pieces.

    Args:
        controller: a `SteppedMemory` such as `Recurrent`, or any module or function from (batch, x + r) to
            (batch, h), for instance a feed-forward network; its input is `memory.output_size` wider than x.
        memory: of the controller's output as its input.
        output_size: width of y; None leaves out W, and then y_t = [h_t, r_t].
        input_size: width of x, needed where the controller does not tell it.
    """

    def __init__(
        self,
        controller: SteppedMemory | Callable[[Tensor], Tensor],
        memory: SteppedMemory,
        output_size: int | None = None,
        *,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        self.controller, self.memory = controller, memory
        if isinstance(controller, SteppedMemory):
            known = controller.input_size - memory.output_size
            if input_size not in (None, known) or known < 1:
                raise ValueError(
                    f"controller must take inputs and the {memory.output_size} numbers that memory answers, "
                    f"not {controller.input_size} with an input_size of {input_size}"
                )
            if controller.output_size != memory.input_size:
                raise ValueError(
                    "memory must take what the controller gives: "
                    f"{memory.input_size}, {controller.output_size}"
                )
            input_size = known
        if input_size is None:
            raise ValueError("input_size must be given: the controller does not tell it")
        self.input_size = input_size
        joined = memory.input_size + memory.output_size
        self.output = None if output_size is None else nn.Linear(joined, output_size)
        self.output_size = joined if output_size is None else output_size

    def configuration(self) -> dict[str, Any]:
        output_size = None if self.output is None else self.output_size
        return {**super().configuration(), "output_size": output_size}

    def initial_state(self, batch_size: int) -> MemoryAugmentedState:
        """Controller and memory as they begin; nothing was read."""
        controller = self.controller
        return MemoryAugmentedState(
            controller.initial_state(batch_size) if isinstance(controller, SteppedMemory) else (),
            self.memory.initial_state(batch_size),
            self._origin.new_zeros(batch_size, self.memory.output_size),
        )

    def step(
        self, prepared: Float[Tensor, "batch input"], state: MemoryAugmentedState
    ) -> tuple[Float[Tensor, "batch joined"], MemoryAugmentedState]:
        seen, remembered = torch.cat([prepared, state.reads.to(prepared)], dim=-1), state.controller
        if isinstance(self.controller, SteppedMemory):
            given, remembered = self.controller.step(self.controller.prepare(seen), remembered)
            hidden = self.controller.conclude(given)
        else:
            hidden = self.controller(seen)
        given, memory = self.memory.step(self.memory.prepare(hidden), state.memory)
        reads = self.memory.conclude(given)
        state = MemoryAugmentedState(remembered, memory, reads.to(state.reads))
        return torch.cat([hidden, reads.to(hidden)], dim=-1), state

    def conclude(self, given: Float[Tensor, "*shape joined"]) -> Float[Tensor, "*shape output"]:
        """y, from what the controller made of the inputs and what memory answered, side by side."""
        return given if self.output is None else self.output(given)

    def stretch(self, state: MemoryAugmentedState) -> "Stretch | None":
        memory = self.memory.stretch(state.memory)
        return None if memory is None else _SideBySide(self, state, memory)


@final
class _SideBySide(Stretch):
    """The same over a stretch of time of the memory, which goes its own way; and the controller its own."""

    def __init__(self, network: MemoryAugmented, state: MemoryAugmentedState, memory: Stretch) -> None:
        self.network, self.memory, self.reads = network, memory, state.reads
        self.controller: Stretch | None = None
        if isinstance(network.controller, SteppedMemory):
            own = network.controller.stretch(state.controller)
            self.controller = own or StateByState(network.controller, state.controller)

    def step(
        self,
        prepared: Float[Tensor, "batch input"],
        known: Bool[Tensor, " batch"] | None,
        starts: Bool[Tensor, " batch"] | None,
    ) -> Float[Tensor, "batch joined"]:
        network = self.network
        if starts is not None:
            self.reads = self.reads.masked_fill(starts.unsqueeze(-1), 0)
        hidden = self._control(torch.cat([prepared, self.reads.to(prepared)], dim=-1), known, starts)
        given = self.memory.step(network.memory.prepare(hidden), known, starts)
        reads = network.memory.conclude(given).to(self.reads)
        self.reads = reads if known is None else torch.where(known.unsqueeze(-1), reads, self.reads)
        return torch.cat([hidden, reads.to(hidden)], dim=-1)

    def _control(self, seen: Tensor, known: Tensor | None, starts: Tensor | None) -> Tensor:
        controller = self.network.controller
        if self.controller is None or not isinstance(controller, SteppedMemory):
            return controller(seen)
        return controller.conclude(self.controller.step(controller.prepare(seen), known, starts))

    def end(self) -> MemoryAugmentedState:
        controller = () if self.controller is None else self.controller.end()
        return MemoryAugmentedState(controller, self.memory.end(), self.reads)
