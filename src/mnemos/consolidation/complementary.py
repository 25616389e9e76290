"""Two systems that answer together: a fast store by what it resembles, a slow network by what it has
learned."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.consolidation.episodes import Episodes

System = Literal["store", "network"]


@final
class ComplementarySystems:
    """Classes from a fast store and a slow network.

    p(y|x) = s · p_store(y|x) + (1 − s) · p_network(y|x), where the store's part is the mean of the classes
    of the nearest experiences, weighted by exp(−d² / (τ · d₁²)), d₁ the least of their distances: what is
    found in the store has a say by how near it is beside the others.

    Args:
        network: inputs to the logits of classes.
        episodes: whose targets are these classes, in a store with the euclidean metric.
        neighbours: experiences that answer.
        temperature: τ above 0.
        share: s in 0 to 1, of the store.
        reach: how far away the nearest experience may lie for the store to have a say; beyond it the network
            answers by itself. Without a limit a store that has never met the like still guesses.
    """

    def __init__(
        self,
        network: nn.Module,
        episodes: Episodes,
        neighbours: int = 5,
        temperature: float = 0.2,
        share: float = 0.5,
        reach: float = math.inf,
    ) -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, not {neighbours}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        if not 0 <= share <= 1:
            raise ValueError(f"share must be 0 to 1, not {share}")
        if not reach >= 0:
            raise ValueError(f"reach must be 0 or more, not {reach}")
        self.network, self.episodes = network, episodes
        self.neighbours, self.temperature, self.share, self.reach = neighbours, temperature, share, reach
        self.lesioned: frozenset[System] = frozenset()

    @contextmanager
    def lesion(self, *systems: System) -> Iterator[None]:
        """Switches a system off meanwhile; nothing of it is deleted."""
        before, self.lesioned = self.lesioned, self.lesioned | set(systems)
        try:
            yield
        finally:
            self.lesioned = before

    @torch.no_grad()
    def answer(self, inputs: Tensor, classes: int) -> Float[Tensor, "rows classes"]:
        """The probability of each class; where both systems are switched off, all are alike.

        Args:
            classes: how many there are.
        """
        network = None
        if "network" not in self.lesioned:
            network = self.network(inputs)[:, :classes].softmax(-1).cpu()
        if "store" in self.lesioned or not len(self.episodes):
            return torch.full((len(inputs), classes), 1 / classes) if network is None else network
        store, distance = _found(self.episodes, inputs, classes, self.neighbours, self.temperature)
        if network is None:
            return store
        share = self.share * (distance <= self.reach)
        return share * store + (1 - share) * network


def recall(
    episodes: Episodes, inputs: Tensor, classes: int, neighbours: int = 5, temperature: float = 0.2
) -> Float[Tensor, "rows classes"]:
    """What a fast store alone answers: the probability of each class; see `ComplementarySystems`.

    Raises:
        ValueError: the store has no experiences, or its metric is not euclidean.
    """
    return _found(episodes, inputs, classes, neighbours, temperature)[0]


def _found(
    episodes: Episodes, inputs: Tensor, classes: int, neighbours: int, temperature: float
) -> tuple[Float[Tensor, "rows classes"], Float[Tensor, "rows 1"]]:
    """The probability of each class, and how far away the nearest experience lies."""
    if episodes.store.metric != "euclidean":
        raise ValueError(f"the store's metric must be euclidean, not {episodes.store.metric}")
    if not len(episodes):
        raise ValueError("there are no experiences to answer from")
    where = {"namespace": episodes.namespace}
    hits = episodes.store.read(episodes.encode(inputs), min(neighbours, len(episodes)), where=where)
    targets = episodes.get(hits.ids.flatten()).targets.view(hits.ids.shape)
    squared = hits.scores.square()
    nearest = squared[:, :1].clamp(min=torch.finfo(squared.dtype).tiny)
    weights = (-(squared / nearest - 1) / temperature).softmax(1)
    return torch.zeros(len(inputs), classes).scatter_add(1, targets, weights), hits.scores[:, :1]
