"""Relations across episodes: from A to B, and from B to C, follows A to C."""

from collections.abc import Callable

import torch
from torch import Tensor

from mnemos.consolidation.episodes import Episodes
from mnemos.consolidation.selection import Selection
from mnemos.consolidation.sleep import Source


def chained(
    episodes: Episodes,
    as_input: Callable[[Tensor], Tensor],
    *,
    hops: int = 2,
    nearest: float = 0.0,
    selection: Selection | None = None,
) -> Source:
    """Replays what follows from several experiences, none of which says it.

    What one experience answers is the cue of the next: the fast store is read again with its own output
    (Kumaran & McClelland 2012, "Generalization through the recurrent interaction of episodic memories"). Of
    a chain its first input and its last target are learned. Chains that break, since the store holds
    nothing that begins where they are, end where they broke.

    Args:
        as_input: targets to the inputs that would cue them.
        hops: experiences in a chain, at least 2.
        nearest: how far the key of the next experience may lie from the cue's, in the store's metric, which
            must be a distance; 0 is the same key. It also must not lead back to where the chain was.
    """
    if hops < 2:
        raise ValueError(f"hops must be at least 2, not {hops}")
    if not nearest >= 0:
        raise ValueError(f"nearest must be 0 or more, not {nearest}")

    def source(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        metric = episodes.store.metric
        if metric not in ("euclidean", "hamming"):
            raise ValueError(f"chains need a store whose metric is a distance, not {metric}")
        batch = episodes.sample(rows, selection, generator=generator)
        targets, been = batch.targets.clone(), batch.ids.unsqueeze(1)
        going = torch.ones(rows, dtype=torch.bool)
        for _ in range(hops - 1):
            cues = episodes.encode(as_input(targets))
            where = {"namespace": episodes.namespace}
            hits = episodes.store.read(cues, min(been.shape[1] + 1, len(episodes)), where=where)
            fits = (
                (hits.ids >= 0) & (hits.scores <= nearest) & ~(hits.ids[:, :, None] == been[:, None]).any(2)
            )
            going = going & fits.any(1)
            first = hits.ids.gather(1, fits.int().argmax(1, keepdim=True))
            if going.any():
                targets[going] = episodes.get(first[going, 0]).targets
            been = torch.cat([been, first.masked_fill(~going[:, None], -1)], dim=1)
        return batch.inputs, targets

    return source
