import torch

from mnemos.models.key_value_network import KeyValueNetwork
from mnemos.tasks.knowledge_base import KnowledgeBase


def test_more_facts_can_be_told_later():
    torch.manual_seed(0)
    base = KnowledgeBase(entities=30, relations=2, slots=12)
    asked = base.ask(torch.arange(5), torch.Generator().manual_seed(0))
    network = KeyValueNetwork(base.vocabulary_size, width=8, slots=12)
    whole = network.ask(network.tell(asked.keys, asked.values), asked.questions)
    some = network.tell(asked.keys[:, :5], asked.values[:, :5])
    parts = network.ask(network.tell(asked.keys[:, 5:], asked.values[:, 5:], some), asked.questions)
    torch.testing.assert_close(parts.logits, whole.logits)
    assert whole.weights.shape == (5, 2, 12)
    assert network.configuration() == {"vocabulary_size": 41, "width": 8, "slots": 12, "hops": 2}
