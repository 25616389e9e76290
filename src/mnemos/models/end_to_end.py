"""The end-to-end memory network: reads a story into its memory, and answers questions in several hops."""

from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.multi_hop import MultiHop, MultiHopState


class Answer(NamedTuple):
    """What a network says to a question, and where it looked."""

    logits: Float[Tensor, "batch vocabulary"]
    weights: Float[Tensor, "batch hops slots"]  # of every slot in every hop


@final
class MemN2N(nn.Module):
    """Sukhbaatar et al. 2015, "End-To-End Memory Networks".

    A sentence is the sum of its words' embeddings, weighed by their places in it (position encoding, section
    4.1): word j counts for 1 + (2k/d - 1)(2j/J - 1) in dimension k of d, both counted from the middle of
    their step. This is the authors' program, and twice what the paper prints. It is linear in k, so two sums
    over the words are enough for all dimensions. Sentences are written into a `MultiHop` memory as they
    come; the question is embedded like a sentence's key (B = A¹), and the answer is the word whose embedding
    as the last value fits best (Wᵀ = Cᴷ). As in the program, too, a hop may find nothing (see `MultiHop`).

    The story is the state, and the caller's: `tell` more later, `ask` as often as wanted, `mnemos.save` it.

    Args:
        vocabulary_size: numbers of words, 0 among them, which is no word.
        width: d.
        slots: sentences that are kept, the last ones.
        hops: K.
        tying: "adjacent" or "layer_wise"; see `MultiHop`.
        longest: J, the words of the longest sentence: a place counts the same in all sentences. With 0 places
            do not count at all, and a sentence is a bag of words.
    """

    _dimension: Tensor

    def __init__(
        self,
        vocabulary_size: int,
        width: int = 50,
        slots: int = 50,
        hops: int = 3,
        tying: str = "adjacent",
        longest: int = 12,
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.longest = vocabulary_size, longest
        self.width, self.slots, self.hops, self.tying = width, slots, hops, tying
        self.memory = MultiHop(width, slots, hops, tying, may_find_nothing=True)
        # A¹ to Cᴷ side by side, so that one look-up finds all of a word's embeddings.
        self.embedding = nn.Parameter(0.1 * torch.randn(vocabulary_size, self.memory.input_size))
        dimension = (2 * torch.arange(width) + 1) / width - 1  # 2k/d - 1
        self.register_buffer("_dimension", dimension.repeat(self.memory.records), persistent=False)

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        names = ("vocabulary_size", "width", "slots", "hops", "tying", "longest")
        return {name: getattr(self, name) for name in names}

    def forward(
        self,
        sentences: Int[Tensor, "batch slots words"],
        told: Int[Tensor, " batch"],
        questions: Int[Tensor, "batch asked"],
    ) -> Answer:
        """Answers one question of every story, given as numbers of words with 0 filling up.

        Args:
            told: how many of the sentences are there, at most the memory's slots.
        """
        there = torch.arange(sentences.shape[1], device=told.device) < told.unsqueeze(1)
        embedded = self.embedding.new_zeros(*sentences.shape[:2], self.memory.input_size)
        # Most stories are shorter than the longest: only sentences that are there are embedded.
        embedded = embedded.index_put((there,), self.embed(sentences[there]))
        _, keys, values, _ = self.memory.project(embedded)
        return self.ask(self.memory.told(keys, values, told), questions)

    def tell(
        self, sentences: Int[Tensor, "batch slots words"], state: MultiHopState | None = None
    ) -> MultiHopState:
        """The story with more sentences told; a sentence of no word is told as well, and says nothing."""
        state = self.memory.initial_state(sentences.shape[0]) if state is None else state
        _, keys, values, _ = self.memory.project(self.embed(sentences))
        return self.memory.write(state, keys, values)

    def ask(self, state: MultiHopState, questions: Int[Tensor, "batch asked"]) -> Answer:
        """Answers a question of every story from what was told so far."""
        question, _, _, _ = self.memory.project(self.embed(questions).unsqueeze(1))
        return self.answer(state, question)

    def answer(self, state: MultiHopState, question: Float[Tensor, "batch 1 width"]) -> Answer:
        """Answers a question that is embedded already."""
        reading = self.memory.read(state, question)
        weights = reading.weights.unflatten(-1, (self.hops, self.slots)).squeeze(1)
        return Answer(reading.values.squeeze(1) @ self.embedding[:, -self.width :].mT, weights)

    def embed(self, words: Int[Tensor, "*shape words"]) -> Float[Tensor, "*shape embedded"]:
        """Each sentence's key and values."""
        summed = self._sum(words, torch.ones_like(words))
        if not self.longest:
            return summed
        place = (2 * torch.arange(words.shape[-1], device=words.device) + 1) / self.longest - 1  # 2j/J - 1
        return summed + self._dimension * self._sum(words, place.expand(words.shape))

    def _sum(self, words: Tensor, weights: Tensor) -> Tensor:
        summed = functional.embedding_bag(
            words.flatten(0, -2),
            self.embedding,
            per_sample_weights=weights.to(self.embedding).flatten(0, -2),
            mode="sum",
            padding_idx=0,
        )
        return summed.unflatten(0, words.shape[:-1])
