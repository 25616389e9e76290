"""Blocks of steps as compiled code: where a step is many small operations, calling them is what costs."""

from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mnemos.memories.base import Memory, check_sizes
from mnemos.tree import map_tensors


@final
class CompiledBlocks(Memory):
    """A memory, or a network with one, that takes several steps at once as one graph of torch.compile.

    Values, gradients and states are those of the memory itself, whose parameters these are; a state of the
    one goes on in the other. The first block is compiled when it is met, which takes minutes, and so is the
    first with a mask, with a reset, or of another batch size. What is left of a sequence after the last whole
    block goes through the memory as it stands.

    Args:
        memory: whose `forward` torch.compile takes in one graph, as it takes that of every memory here which
            is made of tensors only.
        steps: of a block. More are faster, up to some ten of them, and take longer to compile.
        backend: that of torch.compile.
        options: of that backend. With `{"cpp_wrapper": True}` what calls the pieces of code is no Python
            either: faster by a fifth, and half as long again to compile.
    """

    def __init__(
        self,
        memory: Memory,
        steps: int = 10,
        backend: str = "inductor",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(steps=steps)
        self.memory, self.steps, self.backend, self.options = memory, steps, backend, options
        self.input_size, self.output_size = memory.input_size, memory.output_size
        self._block: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_block": None}  # a copy compiles its own

    def initial_state(self, batch_size: int) -> Any:
        return self.memory.initial_state(batch_size)

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: Any = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], Any]:
        state, real, fresh = self.begin(inputs, state, mask, reset)
        if self._block is None:
            self._block = torch.compile(
                self.memory, fullgraph=True, dynamic=False, backend=self.backend, options=self.options
            )
        if torch.is_grad_enabled() and any(x.requires_grad for x in self.parameters()):
            # Later blocks begin at a state with a gradient. If the first does not, it is another graph.
            state = map_tensors(_with_gradient, state)
        outputs = []
        pieces = zip(*(x.split(self.steps, 1) for x in (inputs, real, fresh)), strict=True)
        for piece, known, starts in pieces:
            run = self._block if piece.shape[1] == self.steps else self.memory
            flags = {"mask": None if mask is None else known, "reset": None if reset is None else starts}
            output, state = run(piece, state, **flags)
            outputs.append(output)
        return torch.cat(outputs, dim=1), state


def _with_gradient(x: Tensor) -> Tensor:
    return x if x.requires_grad or not x.is_floating_point() else x.detach().requires_grad_()
