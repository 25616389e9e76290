"""What Titans' wirings share: tokens that stand before every document, and how a memory gates attention."""

from typing import NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mnemos.memories.base import Memory


class Opened(NamedTuple):
    """A stretch with the persistent tokens put in before each document that begins in it."""

    inputs: Float[Tensor, "batch longer input"]
    mask: Bool[Tensor, "batch longer"] | None
    reset: Bool[Tensor, "batch longer"] | None
    steps: Int[Tensor, " time"]  # where the steps of the stretch are now


@final
class PersistentTokens(nn.Module):
    """P, what a task is about whatever the text: learned vectors of an input's width (eq. 22).

    They are drawn as large as normalised inputs.

    Args:
        count: how many, none included.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        if count < 0:
            raise ValueError(f"persistent must be at least 0, not {count}")
        # Of no tokens there is nothing to learn, and nobody should wait for their gradient.
        self.tokens = nn.Parameter(torch.randn(count, width), requires_grad=count > 0)

    def opening(
        self,
        inputs: Float[Tensor, "batch time input"],
        mask: Bool[Tensor, "batch time"] | None,
        reset: Bool[Tensor, "batch time"] | None,
        first: Bool[Tensor, "batch time"],
    ) -> Opened:
        """[P || x]: the tokens as steps of their own before the first real step of every document.

        Args:
            mask, reset: as in `Memory.forward`.
            first: true at the first real step of a document.
        """
        count, time = len(self.tokens), inputs.shape[1]
        groups = [1 + count * begins for begins in self._columns(first, mask is None and reset is None)]
        lengths = torch.tensor(groups, dtype=torch.int64, device=inputs.device)
        steps = lengths.cumsum(0) - 1  # a step is the last of its group
        if sum(groups) == time:
            return Opened(inputs, mask, reset, steps)
        step = torch.arange(time, device=inputs.device).repeat_interleave(lengths, output_size=sum(groups))
        number = torch.arange(sum(groups), device=inputs.device) - (steps - lengths + 1)[step]
        is_token = number < (lengths - 1)[step]
        tokens = self.tokens.to(inputs.dtype).expand(len(inputs), -1, -1)
        # Rows begin at different steps: where one does, the tokens are masked in those that do not.
        known = torch.ones_like(first) if mask is None else mask
        real = torch.where(is_token, first.index_select(1, step), known.index_select(1, step))
        whole = not torch.compiler.is_compiling() and bool(real.all())
        return Opened(
            torch.cat([inputs, tokens], dim=1).index_select(1, torch.where(is_token, time + number, step)),
            None if whole else real,
            None if reset is None else reset.index_select(1, step) & (number == 0),
            steps,
        )

    def _columns(self, first: Tensor, plain: bool) -> list[bool]:
        """Before which steps a document begins in some row; in a compiled graph, before which it may."""
        if not torch.compiler.is_compiling():
            return first.any(0).tolist()
        return [step == 0 or not plain for step in range(first.shape[1])]


@final
class MemoryGate(nn.Module):
    """y ⊗ m: what attention saw, gated by what a memory answers (eqs. 25 and 28).

    Both are normalised by learned vectors, "followed by a non-linearity σ"; here it is the logistic function
    of what the memory answers. A memory that answers nothing lets half of everything through.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seen_norm, self.answer_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)

    def forward(
        self, seen: Float[Tensor, "batch time width"], answers: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        seen, answers = seen.to(self.seen_norm.weight), answers.to(self.answer_norm.weight)
        gated: Tensor = self.seen_norm(seen) * self.answer_norm(answers).sigmoid()
        return gated


def check_width(memory: Memory) -> None:
    """Raises ValueError for a memory that does not give what it takes."""
    if memory.input_size != memory.output_size:
        raise ValueError(
            f"memory must give what it takes, not {memory.output_size} numbers for {memory.input_size}"
        )


def set_naive(naive: bool, *parts: Memory) -> None:
    """Lets those of the parts that have a plain loop take it, or not."""
    for part in parts:
        if hasattr(part, "naive"):
            part.naive = naive
