"""The recurrent entity network: a memory that follows the world as it is told, and what answers from it."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mnemos.memories.entity import EntNet, EntNetState


@final
class EntityNetwork(nn.Module):
    """Henaff et al. 2017: a question q is answered by R φ(q + H u), u what the memory gives for it (eq. 6).

    Args:
        memory: what sentences, embedded as vectors of its width, are told to.
        answers: how many there are.
    """

    def __init__(self, memory: EntNet, answers: int) -> None:
        super().__init__()
        self.memory = memory
        self.read = nn.Linear(memory.width, memory.width, bias=False)  # H
        self.activation = nn.PReLU(memory.width)  # φ
        self.output = nn.Linear(memory.width, answers, bias=False)  # R

    def forward(
        self,
        sentences: Float[Tensor, "batch time width"],
        question: Float[Tensor, "batch width"],
        mask: Bool[Tensor, "batch time"] | None = None,
        state: EntNetState | None = None,
    ) -> Float[Tensor, "batch answers"]:
        """The logits of all answers to one question for each row, after its sentences."""
        _, state = self.memory(sentences, state, mask=mask)
        return self.ask(state, question.unsqueeze(1)).squeeze(1)

    def ask(
        self, state: EntNetState, questions: Float[Tensor, "batch asked width"]
    ) -> Float[Tensor, "batch asked answers"]:
        """The logits of all answers to each of some questions, from what is known."""
        found = questions + self.read(self.memory.read(state, questions).values)
        # φ wants the width second.
        return self.output(self.activation(found.flatten(0, 1)).view_as(found))

    def follow(self, sentences: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time slots width"]:
        """The memory after each of the sentences, from the start of a story.

        What is known then does not depend on what is told later. So one pass over a story learns from
        questions after every sentence.
        """
        state, known = self.memory.initial_state(sentences.shape[0]), []
        for prepared in self.memory.prepare(sentences).unbind(1):
            state = self.memory.told(prepared, state)
            known.append(state.memory)
        return torch.stack(known, dim=1)


@final
class MaskedWords(nn.Module):
    """A sentence as the sum of its words' embeddings, each times a learned vector of its place (eq. 1).

    Args:
        vocabulary_size: numbers of words; 0 is no word.
        words: places in the longest sentence.
    """

    def __init__(self, vocabulary_size: int, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[0] = 0
        self.places = nn.Parameter(torch.ones(words, width))  # f_i

    def forward(self, words: Tensor) -> Tensor:
        """From (..., words) to (..., width)."""
        return (self.embedding(words) * self.places[: words.shape[-1]]).sum(-2)
