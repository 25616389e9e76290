"""The study of attached memories, at sizes where nothing is learned."""

import json

import torch

from mnemos.progress import silent
from mnemos.studies import attach, attached_models, told_facts


def test_a_sentence_tells_its_fact_among_words_and_a_question_ends_with_the_name():
    generator = torch.Generator().manual_seed(0)
    facts = told_facts.draw_facts(50, generator)
    assert all(len(set(names)) == told_facts.FACTS for names in facts.names.tolist())
    told, asked = told_facts.sentences(facts, generator), told_facts.questions(facts.names, generator)
    assert told.shape == (50, told_facts.FACTS, told_facts.SENTENCE)
    named = told < told_facts.NAMES
    assert torch.equal(told[named].view_as(facts.names), facts.names)
    assert torch.equal(told[named.roll(1, dims=2)].view_as(facts.values), facts.values)
    assert (told < told_facts.NAMES + told_facts.VALUES).sum(2).eq(2).all()
    assert len(set(named.int().argmax(2).flatten().tolist())) == told_facts.SENTENCE - 1
    assert torch.equal(asked[..., -1], facts.names)
    assert asked[..., :-1].min() >= told_facts.NAMES + told_facts.VALUES


def test_every_kind_of_memory_brings_what_was_told_to_the_question():
    for kind in attached_models.KINDS:
        model, attachment = attached_models.train(kind, 1, 0, silent)
        for part in attachment.parts.values():
            part.gate.data.normal_()
        facts = told_facts.draw_facts(3, torch.Generator().manual_seed(0))
        others = facts._replace(values=facts.values.roll(1, dims=1))
        for at_once in (False, True):
            with torch.no_grad():
                said, again, otherwise = (
                    told_facts.asked_later(
                        model, attachment, told, torch.Generator().manual_seed(2), at_once=at_once
                    )
                    for told in (facts, facts, others)
                )
            assert said.shape == (3 * told_facts.FACTS, model.config.vocab_size)
            assert torch.equal(said, again)
            assert not torch.equal(said, otherwise)
        assert 0 <= attached_models.recall(model, attachment, 2, 0) <= 1


def test_facts_are_corrected_and_erased_and_asked_in_another_process_on_untrained_weights_too():
    model, attachment = attached_models.train("attention", 1, 0, silent)
    learned = {name: tensor.clone() for name, tensor in attachment.state_dict().items()}
    attachment.detach()
    found = attach.corrections(model, learned, 2, 0) | attach.other_process(model, learned, 0)
    assert all(0 <= share <= 1 for share in found.values())
    assert found["other_process_same"] == 1
    assert not hasattr(model, "mnemos_attachment")
    recalls = ("recall", "recall_of_32", "recall_of_32_at_once", "recall_detached")
    measured = found | dict.fromkeys(recalls, 0.5)
    assert len(attach.draw(json.loads(json.dumps(measured))).axes[0].patches) == 8


def test_other_ways_to_teach_are_measured_too():
    found = attached_models.other_ways(1, 2, 0, silent)
    assert len(found) == 6
    assert all(0 <= share <= 1 for share in found.values())
