"""What is carried from one segment of a text to the next, where nobody passes a cache: as in training."""

from collections.abc import Mapping
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Bool
from torch import Tensor

from mnemos.models.hugging_face import cache_state, surface
from mnemos.models.hugging_face.part import Part
from mnemos.models.hugging_face.residual_memory import ResidualPart
from mnemos.tree import detach, reset_rows


@final
class Stream:
    """A cache that goes from pass to pass, and which of its steps are real: one row for each text.

    Args:
        cached: with the keys and values of the last steps, and the states of memories.
    """

    def __init__(self, cached: Any) -> None:
        self.cached = cached
        self.real: Tensor | None = None  # (batch, kept) of what the cache keeps

    def before(
        self,
        given: dict[str, Any],
        batch: int,
        time: int,
        reset: Bool[Tensor, " batch"] | None,
        parts: Mapping[int, Part],
    ) -> dict[str, Any]:
        """The arguments of a pass of `time` steps, with the cache, and a mask that tells of its padding."""
        if self.real is not None and len(self.real) != batch:
            raise ValueError(
                f"carry: {len(self.real)} texts are being read, and a batch of {batch} comes: give every "
                "batch as many rows (dataloader_drop_last=True), or begin anew"
            )
        seen, kept = cache_state.length(self.cached, 0), surface.kept(self.cached)
        mask = given.get("attention_mask")
        if mask is not None and (not isinstance(mask, Tensor) or mask.shape != (batch, time)):
            raise ValueError(f"carry: attention_mask must have shape ({batch}, {time}): of the segment alone")
        device = next(
            iter(given[name].device for name in ("input_ids", "inputs_embeds") if given.get(name) is not None)
        )
        new = torch.ones(batch, time, dtype=torch.bool, device=device) if mask is None else mask.bool()
        before = new.new_zeros(batch, 0) if self.real is None else self.real
        if reset is not None:
            before = before & ~reset.unsqueeze(1)
        for layer, part in parts.items():
            if isinstance(part, ResidualPart):
                cache_state.change(self.cached, layer, partial(_renewed, reset=reset, part=part))
        self.real = torch.cat([before, new], dim=1)
        whole = torch.cat([new.new_zeros(batch, seen - kept), self.real], dim=1)
        self.real = self.real[:, max(0, kept + time - surface.bound(self.cached)) :]
        return {
            **given,
            "past_key_values": self.cached,
            "attention_mask": None if bool(whole[:, seen - kept :].all()) else whole.to(torch.int64),
        }


def _renewed(state: Any, *, reset: Tensor | None, part: ResidualPart) -> Any:
    """A state without its history, and afresh in the rows that begin another text."""
    state = detach(state)
    return state if reset is None else reset_rows(state, reset, part.memory.initial_state(1))
