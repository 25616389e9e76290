"""The memory network that is told which facts matter: facts in a store, found one after the other.

Weston, Chopra & Bordes 2015, "Memory Networks": the input map I, the generalisation G, the output O and the
response R. Here I is words to numbers, G writes a fact to an open store, O and R are learned.
"""

from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.stores.base import Store
from mnemos.tasks.babi import Questions


class Response(NamedTuple):
    """An answer, and the facts that it was given from."""

    logits: Float[Tensor, "batch vocabulary"]
    facts: Int[Tensor, "batch hops"]  # slots, in the order in which they were found


@final
class MemoryNetwork(nn.Module):
    """Finds `hops` supporting facts one after the other, and answers from them.

    O scores fact y before fact y' for what is known so far, x, by equation (7), with U the embedding of bags
    of words and of three features of time, which tell whether x is older than y, than y', and y than y':

        s(x, y, y') = U Φ(x) · (U Φ(y) - U Φ(y') + U Φ_t(x, y, y'))

    Going through the facts from the first, the one that wins against the winner so far wins. R scores every
    word as the answer to the question and the facts found, s_R(x, w) = V Φ(x) · V Φ(w). A word has other
    embeddings in a question, in a fact that was found, and as what is scored (section 3.1).

    Args:
        vocabulary_size: numbers of words, 0 among them, which is no word.
        width: d.
        hops: k, facts that an answer takes.
    """

    def __init__(self, vocabulary_size: int, width: int = 50, hops: int = 1) -> None:
        super().__init__()
        self.vocabulary_size, self.width, self.hops = vocabulary_size, width, hops
        scale = width**-0.5
        self.finding = nn.Parameter(scale * torch.randn(3, vocabulary_size, width))  # U_O
        self.times = nn.Parameter(scale * torch.randn(3, width))
        self.answering = nn.Parameter(scale * torch.randn(3, vocabulary_size, width))  # U_R

    def configuration(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in ("vocabulary_size", "width", "hops")}

    def forward(
        self,
        facts: Int[Tensor, "batch slots words"],
        told: Int[Tensor, " batch"],
        questions: Int[Tensor, "batch asked"],
    ) -> Response:
        """Finds facts, the first of which are there, and answers."""
        found: list[Tensor] = []
        for _ in range(self.hops):
            found.append(self._winner(facts, told, questions, found))
        slots = torch.stack(found, dim=1) if found else told.new_zeros(len(told), 0)
        return Response(self._response(facts, questions, found), slots)

    def loss(self, batch: Questions, supporting: Int[Tensor, "batch hops"], margin: float = 0.1) -> Tensor:
        """The margin ranking loss of equation (8), of finding each supporting fact and then of answering.

        Args:
            supporting: the slots of the facts, in the order in which they are to be found.
        """
        there = torch.arange(batch.sentences.shape[1]) < batch.told.unsqueeze(1)
        total = torch.zeros(())
        for hop in range(self.hops):
            known, slot = list(supporting[:, :hop].unbind(1)), supporting[:, hop]
            every = torch.arange(there.shape[1]).expand(there.shape)
            right = slot.unsqueeze(1).expand_as(every)
            others = there & (every != right)
            won = self._better(batch.sentences, batch.questions, known, right, every)
            lost = self._better(batch.sentences, batch.questions, known, every, right)
            ranked = functional.relu(margin - won) + functional.relu(margin + lost)
            total = total + ranked.masked_fill(~others, 0).sum(1).mean()
        scores = self._response(batch.sentences, batch.questions, list(supporting.unbind(1)))
        right = scores.gather(1, batch.answers.unsqueeze(1))
        ranked = functional.relu(margin - right + scores).scatter(1, batch.answers.unsqueeze(1), 0)
        return total + ranked.sum(1).mean()

    def _winner(self, facts: Tensor, told: Tensor, questions: Tensor, found: list[Tensor]) -> Tensor:
        """The slot of the fact that wins against all that come before it and is not beaten later."""
        best = torch.zeros_like(told)
        for slot in range(1, facts.shape[1]):
            other = torch.full_like(told, slot)
            scores = self._better(facts, questions, found, other.unsqueeze(1), best.unsqueeze(1)).squeeze(1)
            best = torch.where((scores > 0) & (slot < told), other, best)
        return best

    def _better(
        self, facts: Tensor, questions: Tensor, found: list[Tensor], one: Tensor, other: Tensor
    ) -> Float[Tensor, "batch compared"]:
        """How much better one fact fits than another, both given by slots (batch, compared)."""
        known = self._known(self.finding, facts, questions, found)
        embedded = _bags(facts, self.finding[2])
        difference = _picked(embedded, one) - _picked(embedded, other)
        last = found[-1].unsqueeze(1) if found else facts.shape[1]  # a question is newer than all facts
        features = torch.stack([last < one, last < other, one < other], dim=-1).to(difference)
        # 1 or -1 where the paper has 1 or 0: by zeros alone a newer fact could not win against an older one.
        features = 2 * features - 1
        return ((difference + features @ self.times) @ known.unsqueeze(-1)).squeeze(-1)

    def _response(self, facts: Tensor, questions: Tensor, found: list[Tensor]) -> Tensor:
        return self._known(self.answering, facts, questions, found) @ self.answering[2].mT

    def _known(self, embedding: Tensor, facts: Tensor, questions: Tensor, found: list[Tensor]) -> Tensor:
        """The question and the facts that were found, as one vector."""
        known = _bags(questions, embedding[0])
        for slot in found:
            known = known + _bags(_picked(facts, slot.unsqueeze(1)).squeeze(1), embedding[1])
        return known


def write_facts(store: Store, facts: Int[Tensor, "facts words"], vocabulary_size: int) -> None:
    """G: writes facts to an open store, which acknowledges them; the key is how often each word occurs.

    Args:
        facts: numbers of words, 0 filling up; as wide as those that the store holds already.
    """
    bags = torch.zeros(len(facts), vocabulary_size).scatter_add(1, facts, (facts != 0).float())
    store.write(bags, facts)


def stored_facts(store: Store) -> tuple[Int[Tensor, "batch slots words"], Int[Tensor, " batch"]]:
    """All facts of a store in the order in which they were written, as one row, and how many they are."""
    facts = store.get(store.ids()).values
    return facts.unsqueeze(0), torch.tensor([len(facts)])


def _bags(words: Int[Tensor, "*shape words"], embedding: Tensor) -> Float[Tensor, "*shape width"]:
    """Sums of the words' embeddings; 0 is no word."""
    summed = functional.embedding_bag(words.flatten(0, -2), embedding, mode="sum", padding_idx=0)
    return summed.unflatten(0, words.shape[:-1])


def _picked(slots: Tensor, places: Int[Tensor, "batch picked"]) -> Tensor:
    return slots.gather(1, places.unsqueeze(-1).expand(-1, -1, slots.shape[2]))
