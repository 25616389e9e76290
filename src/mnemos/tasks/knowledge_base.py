"""Questions about a generated knowledge base: every entity stands in every relation to one other entity.

After the form of WikiMovies (Miller et al. 2016), whose text cannot be generated: a fact has a subject, a
relation and an object, a question names a subject and asks for an object in words that no fact contains.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

PHRASES = 3  # ways to ask for each relation


class FactQuestions(NamedTuple):
    """Questions with the facts that share their entity; 0 fills up. Keys are (entity, relation)."""

    keys: Int[Tensor, "batch slots 2"]
    values: Int[Tensor, "batch slots 1"]
    questions: Int[Tensor, "batch 2"]  # (entity, phrase)
    answers: Int[Tensor, " batch"]


@dataclass(frozen=True)
class KnowledgeBase:
    """Facts drawn at random. An object's facts are known to it too, under the reversed relation.

    Numbers: entities from 1, then the relations, their reverses, and the phrases of the questions.

    Args:
        slots: facts that a question comes with, at most; some of the reversed ones are left out for it.
    """

    entities: int = 1000
    relations: int = 4
    slots: int = 16
    seed: int = 0

    @property
    def vocabulary_size(self) -> int:
        return 1 + self.entities + (2 + PHRASES) * self.relations

    @cached_property
    def objects(self) -> Int[Tensor, "entities relations"]:
        """Which entity each fact names."""
        generator = torch.Generator().manual_seed(self.seed)
        return 1 + torch.randint(self.entities, (self.entities, self.relations), generator=generator)

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the facts that name each entity, as subject first and then as object."""
        keys = torch.zeros(self.entities, self.slots, 2, dtype=torch.int64)
        values = torch.zeros(self.entities, self.slots, 1, dtype=torch.int64)
        relation = 1 + self.entities + torch.arange(self.relations)
        keys[:, : self.relations, 0] = torch.arange(1, self.entities + 1).unsqueeze(1)
        keys[:, : self.relations, 1] = relation
        values[:, : self.relations, 0] = self.objects
        used = [self.relations] * self.entities
        for subject, row in enumerate(self.objects.tolist()):
            for number, entity in enumerate(row):
                slot = used[entity - 1]
                if slot < self.slots:
                    reverse = int(relation[number]) + self.relations
                    keys[entity - 1, slot] = torch.tensor([entity, reverse])
                    values[entity - 1, slot] = subject + 1
                    used[entity - 1] += 1
        return keys, values

    def ask(self, facts: Int[Tensor, " batch"], generator: torch.Generator) -> FactQuestions:
        """A question for each of some facts, in words chosen at random.

        Args:
            facts: numbers, 0 to entities x relations - 1.
        """
        subject, relation = facts // self.relations, facts % self.relations
        phrase = torch.randint(PHRASES, facts.shape, generator=generator)
        phrase = 1 + self.entities + (2 + phrase) * self.relations + relation
        keys, values = (known[subject] for known in self._known)
        # In an order of their own, lest the place of a fact give it away; what fills up comes last.
        order = (torch.rand(keys.shape[:2], generator=generator) + (keys[..., 0] == 0)).argsort(1)
        keys, values = (part.gather(1, order.unsqueeze(-1).expand_as(part)) for part in (keys, values))
        questions = torch.stack([subject + 1, phrase], dim=1)
        return FactQuestions(keys, values, questions, self.objects[subject, relation])
