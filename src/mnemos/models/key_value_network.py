"""The key-value memory network: finds facts by one part of them, and answers with another."""

from typing import Any, final

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.multi_hop import MultiHop, MultiHopState
from mnemos.models.end_to_end import Answer


@final
class KeyValueNetwork(nn.Module):
    """Miller et al. 2016, "Key-Value Memory Networks for Directly Reading Documents", section 3.

    Questions and keys are sums of their words' embeddings A, values and answers of embeddings B. After each
    hop the question becomes R_k (q + o). B is a matrix of its own, since with one for both nothing could tell
    the entity that is asked about from the one that answers: their sum is the same either way.

    Which facts are looked at is decided before, by words that they share with the question (key hashing).

    Args:
        vocabulary_size: numbers of words and entities, 0 among them, which is none.
        width: d.
        slots: facts that are looked at, at most.
        hops: times that they are.
    """

    def __init__(self, vocabulary_size: int, width: int = 64, slots: int = 32, hops: int = 2) -> None:
        super().__init__()
        self.vocabulary_size, self.width, self.slots, self.hops = vocabulary_size, width, slots, hops
        self.memory = MultiHop(width, slots, hops, tying="key_value", temporal=False)
        self.words = nn.Parameter(torch.randn(vocabulary_size, width) / width**0.5)  # A
        self.answers = nn.Parameter(torch.randn(vocabulary_size, width) / width**0.5)  # B

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in ("vocabulary_size", "width", "slots", "hops")}

    def tell(
        self,
        keys: Int[Tensor, "batch slots words"],
        values: Int[Tensor, "batch slots entities"],
        state: MultiHopState | None = None,
    ) -> MultiHopState:
        """What is known with more facts told; one whose key has no word is not told."""
        state = self.memory.initial_state(keys.shape[0]) if state is None else state
        there = keys.any(-1)
        return self.memory.write(state, _sum(keys, self.words), _sum(values, self.answers), mask=there)

    def ask(self, state: MultiHopState, questions: Int[Tensor, "batch words"]) -> Answer:
        """The score of every word and entity as an answer, and which facts each hop looked at."""
        reading = self.memory.read(state, _sum(questions, self.words).unsqueeze(1))
        weights = reading.weights.unflatten(-1, (self.hops, self.slots)).squeeze(1)
        return Answer(reading.values.squeeze(1) @ self.answers.mT, weights)


def _sum(words: Int[Tensor, "*shape words"], embedding: Tensor) -> Tensor:
    """The sum of the words' embeddings; 0 is no word."""
    return functional.embedding_bag(words.flatten(0, -2), embedding, mode="sum", padding_idx=0).unflatten(
        0, words.shape[:-1]
    )
