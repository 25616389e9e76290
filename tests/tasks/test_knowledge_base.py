import torch

from mnemos.tasks.knowledge_base import PHRASES, KnowledgeBase


def test_a_question_comes_with_the_facts_of_its_entity_both_ways_and_one_answers_it():
    base = KnowledgeBase(entities=30, relations=2, slots=12, seed=1)
    facts = torch.arange(60)
    asked = base.ask(facts, torch.Generator().manual_seed(0))
    entity, phrase = asked.questions.unbind(1)
    assert torch.equal(entity, 1 + facts // 2)
    relation = 31 + (phrase - 31) % 2
    assert phrase.max() < base.vocabulary_size == 31 + (2 + PHRASES) * 2
    for row in range(60):
        known = {
            tuple(key): int(value)
            for key, value in zip(asked.keys[row].tolist(), asked.values[row], strict=True)
        }
        assert {key[0] for key in known} <= {0, int(entity[row])}
        assert known[int(entity[row]), int(relation[row])] == asked.answers[row]
        for (_, how), other in known.items():
            if how > 32:  # reversed: the other entity is the subject of such a fact about this one
                assert base.objects[other - 1, how - 33] == entity[row]
