"""The parts of the studies of memory networks that do not need their minutes."""

import pytest
import torch

from mnemos.models.key_value_network import KeyValueNetwork
from mnemos.studies import kv_memnn, memn2n
from mnemos.tasks.knowledge_base import KnowledgeBase


@torch.no_grad()
def test_the_weight_on_the_fact_is_that_of_the_one_that_answers():
    base = KnowledgeBase(entities=20, relations=2, slots=6)
    network = KeyValueNetwork(base.vocabulary_size, width=8, slots=6, hops=2)
    generator = torch.Generator().manual_seed(0)
    network.words.zero_()  # so that every fact weighs the same
    _, answers, looked = kv_memnn._answered(network, base, torch.arange(40), True, generator)
    assert torch.equal(answers, base.objects.flatten())
    known = (base.ask(torch.arange(40), generator).keys[:, :, 0] > 0).sum(1)
    expected = (1 / known).mean().item()
    assert all(abs(weight - expected) < 1e-6 for weight in looked)
    _, _, none = kv_memnn._answered(network, base, torch.arange(40), False, generator)
    assert none == [0.0, 0.0]
    figure = kv_memnn.draw(
        {"hits_at_1": 0.9, "hits_at_1_without_facts": 0.1, "weight_on_the_fact_by_hop": looked}
    )
    assert [text.get_text() for text in figure.axes[0].texts][:2] == ["90.0", "10.0"]


def test_every_task_has_two_bars_one_with_the_story_and_one_without():
    measured = {
        "by_task": [number / 100 for number in range(20)],
        "by_task_without_memory": [0.5] * 20,
    }
    [axes] = memn2n.draw(measured).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([50.0] * 20 + list(range(20)))
