"""What the slow network answers by itself needs no record any more."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mnemos.consolidation.episodes import Episodes
from mnemos.consolidation.term import evaluated

Known = Callable[[Tensor, Tensor], Tensor]  # outputs and targets to whether each was answered


def answered(outputs: Float[Tensor, "rows classes"], targets: Int[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
    """The best class is the right one."""
    return outputs.argmax(-1) == targets


def confident(chance: float) -> Known:
    """The right class has at least this probability."""
    if not 0 < chance <= 1:
        raise ValueError(f"chance must be above 0 and at most 1, not {chance}")

    def known(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1) >= chance

    return known


@torch.no_grad()
def let_go(
    model: nn.Module,
    episodes: Episodes,
    known: Known | None = None,
    *,
    keep: int = 0,
    rows: int = 1024,
) -> Int[Tensor, " released"]:
    """Deletes the experiences that the network answers by itself, and returns their ids.

    Args:
        known: whether an answer counts; None is `confident(0.9)`. Where it suffices to be `answered`, what is
            only just right is released, and is soon lost again.
        keep: experiences that stay in any case, so that there is something to replay: first what is not
            known, then the strongest.
        rows: that are answered at a time.
    """
    known = known or confident(0.9)
    traces = episodes.traces()
    ids, strength = traces.ids.clone(), traces.strength.clone()
    if len(ids) <= keep:
        return ids[:0]
    device = next(model.parameters()).device
    with evaluated(model):
        right = [
            known(model(batch.inputs.to(device)), batch.targets.to(device)).cpu()
            for batch in (episodes.get(part) for part in ids.split(rows))
        ]
    candidates = torch.cat(right).nonzero().squeeze(1)
    weakest = candidates[strength[candidates].argsort(stable=True)]
    released = ids[weakest[: len(ids) - keep]].sort().values
    if len(released):
        episodes.store.delete(released)
    return released
