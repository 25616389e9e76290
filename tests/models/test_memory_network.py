import torch

import mnemos
from mnemos.models.memory_network import MemoryNetwork, stored_facts, write_facts
from mnemos.tasks.babi import encode, vocabulary
from mnemos.tasks.walks import walks


def test_the_newest_fact_about_somebody_is_found_and_answered_from():
    torch.manual_seed(0)
    learn, test = walks(600), walks(200, seed=1)
    words = vocabulary(learn)
    learned, tested = encode(learn, words), encode(test, words)
    network = MemoryNetwork(len(words), width=20)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for step in range(150):
        batch = learned.pick(torch.arange(step * 32, step * 32 + 32) % 600)
        optimizer.zero_grad()
        network.loss(batch, batch.supporting.int().argmax(1, keepdim=True)).backward()
        optimizer.step()
    response = network(tested.sentences, tested.told, tested.questions)
    found = response.facts[:, 0] == tested.supporting.int().argmax(1)
    assert found.double().mean() >= 0.95
    assert (response.logits.argmax(1) == tested.answers).double().mean() >= 0.95


@torch.no_grad()
def test_scores_are_equation_seven():
    torch.manual_seed(0)
    network = MemoryNetwork(9, width=4, hops=2)
    facts = torch.tensor([[[1, 2, 0], [3, 4, 5], [6, 7, 0]]])
    question = torch.tensor([[8, 1]])
    first, second, third = torch.tensor([[0]]), torch.tensor([[1]]), torch.tensor([[2]])
    asked, found, fact = network.finding
    x = asked[8] + asked[1]
    y, other = fact[1] + fact[2], fact[6] + fact[7]
    score = network._better(facts, question, [], first, third)
    torch.testing.assert_close(score[0, 0], x @ (y - other + torch.tensor([-1.0, -1, 1]) @ network.times))
    x = x + found[3] + found[4] + found[5]
    score = network._better(facts, question, [second[0]], third, first)
    torch.testing.assert_close(score[0, 0], x @ (other - y + torch.tensor([1.0, -1, -1]) @ network.times))


def test_facts_that_are_not_there_are_never_found():
    torch.manual_seed(0)
    network = MemoryNetwork(9, width=4, hops=2)
    facts = torch.randint(1, 9, (40, 6, 3))
    told = torch.randint(1, 7, (40,))
    response = network(facts, told, torch.randint(1, 9, (40, 2)))
    assert (response.facts < told.unsqueeze(1)).all()
    assert response.logits.shape == (40, 9)


@torch.no_grad()
def test_facts_kept_in_a_store_are_answered_from_as_if_told_at_once(tmp_path):
    torch.manual_seed(0)
    network = MemoryNetwork(9, width=4, hops=2)
    facts, question = torch.randint(1, 9, (1, 6, 3)), torch.randint(1, 9, (1, 2))
    facts[:, 2, 2] = 0
    for part in facts[0].split(4):
        with mnemos.open(tmp_path / "facts.memory") as store:
            write_facts(store, part, 9)
    with mnemos.open(tmp_path / "facts.memory", read_only=True) as store:
        found, told = stored_facts(store)
        assert torch.equal(store.get(store.ids()[2:3]).keys[0].sum(), torch.tensor(2.0))
    assert torch.equal(found, facts)
    whole = network(facts, torch.tensor([6]), question)
    for actual, expected in zip(network(found, told, question), whole, strict=True):
        assert torch.equal(actual, expected)
