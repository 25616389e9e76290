"""What hangs in a decoder layer, and what it is told about the forward pass that it takes part in."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mnemos.models.hugging_face.bank import Bank, Staged

Angles = tuple[Tensor, Tensor]
Hidden = Float[Tensor, "batch time hidden"]


@dataclass
class Step:
    """One forward pass of the model, as all attached memories see it.

    It travels through the layers as an argument, so that what gradient checkpointing runs again in the
    backward pass sees the same padding and the same banks, whatever was committed in between.
    """

    real: Bool[Tensor, "batch time"] | None = None  # false at padding; None where nothing is padded
    banks: Mapping[int, Bank] = field(default_factory=dict)  # by layer, as they were when the pass began
    memorizing: bool = False
    staged: dict[int, Staged] = field(default_factory=dict)  # what a commit would write


def real_steps(attention_mask: Any, batch: int, time: int, past: int) -> Bool[Tensor, "batch time"] | None:
    """Which steps of a pass are not padding, from whatever the model was given; None if all are real.

    For compiled caches, `generate` prepares masks of (batch, 1, time, past) for each kind of layer, booleans
    or numbers to add. Of those the diagonal is read: a step sees itself unless it is padding.
    """
    if isinstance(attention_mask, Mapping):
        attention_mask = attention_mask.get("full_attention", next(iter(attention_mask.values()), None))
    if attention_mask is None:
        return None
    if not isinstance(attention_mask, Tensor) or attention_mask.dim() not in (2, 4):
        raise TypeError(f"attention_mask of this kind hides what is padding: {type(attention_mask).__name__}")
    if attention_mask.dim() == 2:
        return attention_mask[:, -time:].bool()
    if past + time > attention_mask.shape[-1]:  # a window that has moved on: only generated steps come now
        return None
    diagonal = attention_mask[:, 0].diagonal(past, dim1=1, dim2=2)
    return (diagonal if diagonal.dtype == torch.bool else diagonal >= 0).expand(batch, -1)


class Current:
    """The step that is going on: one for all layers of a model."""

    def __init__(self) -> None:
        self.step = Step()


class Part(nn.Module, ABC):
    """A memory in one decoder layer. Its parameters are the layer's, as `memory`."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.current = Current()

    @property
    @abstractmethod
    def carries_state(self) -> bool:
        """Whether it remembers from pass to pass in the cache that the caller carries."""

    @abstractmethod
    def before(self, step: Step, attention: nn.Module, angles: Angles | None) -> None:
        """Called before the layer runs.

        Args:
            attention: of the layer.
            angles: cosines and sines by which this pass's positions turn queries and keys; None if none do.
        """

    @abstractmethod
    def after(self, step: Step, hidden: Hidden, state: Any) -> tuple[Hidden, Any]:
        """The layer's outputs with memory, for those that it has by itself, and the state after the pass.

        Args:
            state: after the passes before; None where there were none.
        """

    @abstractmethod
    def report(self) -> dict[str, float]:
        """Plain numbers that tell whether the memory is of use."""

    @abstractmethod
    def forget_reads(self) -> None:
        """Begins the figures of `report` anew."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What would build the part again, as JSON."""
