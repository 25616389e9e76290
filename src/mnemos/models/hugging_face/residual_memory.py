"""Any memory of this library after a decoder layer, added to what the layer gives."""

from typing import Any, final

import torch
from torch import Tensor, nn

from mnemos.memories.base import Memory
from mnemos.models.description import describe
from mnemos.models.hugging_face.part import Angles, Hidden, Part, Step


@final
class ResidualPart(Part):
    """hidden + gate · memory(norm(hidden)), with a gate of zeros before training: nothing changes at first.

    The memory's state goes where the layer's keys and values go: into the cache that the caller carries.
    Without a cache each forward pass begins with a memory that has seen nothing. The memory computes in the
    precision of its own parameters, whatever the model's: low precision spoils what adds up over time.

    Args:
        memory: from hidden states to hidden states: both its sizes are the model's hidden size.
    """

    def __init__(self, layer: int, memory: Memory, hidden_size: int) -> None:
        super().__init__(layer)
        if (memory.input_size, memory.output_size) != (hidden_size, hidden_size):
            raise ValueError(
                f"the memory of layer {layer} must map {hidden_size} numbers to {hidden_size}, the model's "
                f"hidden size, not {memory.input_size} to {memory.output_size}"
            )
        self.memory = memory
        self.norm = nn.LayerNorm(hidden_size)
        self.gate = nn.Parameter(torch.zeros(hidden_size))
        self.forget_reads()

    @property
    def carries_state(self) -> bool:
        return True

    def settings(self) -> dict[str, Any]:
        """Raises TypeError for a memory of parts that JSON cannot hold."""
        try:
            return {"residual": describe(self.memory)}
        except TypeError as error:
            raise TypeError(
                f"the memory of layer {self.layer} stands in the way of saving: {error}"
            ) from error

    def before(self, step: Step, attention: nn.Module, angles: Angles | None) -> None:
        pass

    def after(self, step: Step, hidden: Hidden, state: Any) -> tuple[Hidden, Any]:
        inputs = self.norm(hidden.to(self.norm.weight.dtype))
        answer, state = self.memory(inputs, state, mask=step.real)
        added = (self.gate * answer).to(hidden.dtype)
        self._count(hidden, added)
        return hidden + added, state

    def forget_reads(self) -> None:
        self.hidden: Tensor | float = 0.0
        self.added: Tensor | float = 0.0

    @torch.no_grad()
    def _count(self, hidden: Tensor, added: Tensor) -> None:
        self.hidden = self.hidden + hidden.float().square().sum()
        self.added = self.added + added.float().square().sum()

    def report(self) -> dict[str, float]:
        """Figures of all passes since `forget_reads`.

        - gate: the mean absolute gate; 0 before training.
        - share: what the memory added, relative to what the layer gave (root mean squares).
        """
        hidden, added = float(self.hidden), float(self.added)
        return {
            "gate": float(self.gate.detach().abs().mean()),
            "share": (added / hidden) ** 0.5 if hidden else 0.0,
        }
