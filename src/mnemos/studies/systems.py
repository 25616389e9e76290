"""Two memories, each alone and both together: the columns of every table about a store and a network."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mnemos.consolidation import Episodes


def recalled(episodes: Episodes, inputs: Tensor) -> tuple[Tensor, Bool[Tensor, " rows"]]:
    """What the store alone answers, and which inputs it has met before.

    Returns:
        The targets of the experience with the nearest key, and whether that experience had these very
        inputs.
    """
    found = episodes.nearest(inputs)
    return found.targets[:, 0], (found.inputs[:, 0] == inputs).flatten(1).all(1)


def alone_and_together(
    store: Float[Tensor, " rows"], cortex: Float[Tensor, " rows"], known: Bool[Tensor, " rows"]
) -> dict[str, float]:
    """The average score of each system with the other one lesioned, and of both.

    Args:
        store: the scores of what the store answers; cortex: of what the network answers.
        known: what the store knows it answers when both are there, and the network the rest.
    """
    together = torch.where(known, store, cortex)
    columns = {"store_only": store, "cortex_only": cortex, "both": together}
    return {name: scores.double().mean().item() for name, scores in columns.items()}
