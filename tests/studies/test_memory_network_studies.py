"""The parts of the studies of memory networks that do not need their minutes."""

import pytest
import torch

from mnemos.models.end_to_end import MemN2N
from mnemos.models.key_value_network import KeyValueNetwork
from mnemos.studies import entnet, entnet_babi, kv_memnn, memn2n, memn2n_single
from mnemos.tasks.babi import Questions
from mnemos.tasks.knowledge_base import KnowledgeBase
from mnemos.tasks.world_model import WorldModel


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


@torch.no_grad()
@pytest.mark.parametrize("build", [entnet.Follower, entnet.Reader])
def test_what_is_answered_after_a_statement_is_what_the_story_up_to_there_gives(build):
    torch.manual_seed(0)
    task = WorldModel(9)
    network = build(task.input_size, task.output_size)
    statements, _ = task.stories(3, 9, torch.Generator().manual_seed(0))
    answers = network(statements, task.questions, entnet.TAUGHT)
    assert answers.shape == (3, 3, 2, 100)
    for place, time in enumerate((4, 6, 8)):
        alone = network(statements[:, :time], task.questions, entnet.LAST)
        torch.testing.assert_close(answers[:, place : place + 1], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(answers[:, :, 0], answers[:, :, 1])


def test_the_entity_network_and_its_control_each_have_a_line():
    errors = {f"entnet_error_at_{time}": time / 1000 for time in entnet.TESTED}
    errors |= {f"lstm_error_at_{time}": time / 100 for time in entnet.TESTED}
    lines = [line.get_ydata() for line in entnet.draw(errors).axes[0].lines]
    assert [list(line) for line in lines] == [[1, 2, 3, 4], [10, 20, 30, 40]]


@torch.no_grad()
def test_a_story_reader_does_not_see_what_fills_up():
    torch.manual_seed(0)
    reader = entnet_babi.StoryReader(7, words=3, width=4, slots=2)
    reader.asked.places.normal_()
    sentences = torch.tensor([[[1, 2, 0], [3, 4, 5], [6, 6, 6]]])
    given = Questions(
        sentences,
        torch.tensor([2]),
        torch.tensor([[1, 5, 0]]),
        torch.tensor([2]),
        torch.zeros(1, 3, dtype=torch.bool),
        torch.tensor([1]),
    )
    shorter = given._replace(sentences=sentences[:, :2])
    torch.testing.assert_close(reader(given), reader(shorter))
    assert not torch.allclose(reader(given), reader(given._replace(told=torch.tensor([3]))))
    right = given._replace(answers=reader(given).argmax(-1))
    assert entnet_babi.error(reader, right) == 0
    assert entnet_babi.error(reader, right._replace(answers=right.answers - 1)) == 1


def test_attention_is_drawn_for_every_sentence_and_hop():
    story = {
        "sentences": ["mary went to the hall", "john went to the office"],
        "question": "where is mary",
        "answer": "hall",
        "supporting": [0],
        "weights": [[0.9, 0.1], [0.7, 0.3], [1.0, 0.0]],
    }
    axes = memn2n_single.draw({"story": story}).axes[0]
    marked = [text.get_text() for text in axes.get_yticklabels()]
    assert marked == ["mary went to the hall *", "john went to the office"]
    assert [text.get_text() for text in axes.texts] == ["0.90", "0.70", "1.00", "0.10", "0.30", "0.00"]


@torch.no_grad()
def test_attention_is_the_share_of_questions_that_look_at_the_sentence_that_supports_them():
    torch.manual_seed(0)
    network = MemN2N(7, width=4, slots=3, hops=2)
    questions = Questions(
        torch.randint(1, 7, (40, 3, 2)),
        torch.full((40,), 3),
        torch.randint(1, 7, (40, 2)),
        torch.ones(40, dtype=torch.int64),
        torch.nn.functional.one_hot(torch.arange(40) % 3, 3).bool(),
        torch.ones(40, dtype=torch.int64),
    )
    looked = network(questions.sentences, questions.told, questions.questions).weights.mean(1).argmax(1)
    share = (looked == torch.arange(40) % 3).double().mean().item()
    assert memn2n_single._attention(network, questions) == share
    best = questions._replace(supporting=torch.nn.functional.one_hot(looked, 3).bool())
    best.supporting[:5] = True  # more than one: not asked about
    assert memn2n_single._attention(network, best) == 1
