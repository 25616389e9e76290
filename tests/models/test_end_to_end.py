import pytest
import torch

import mnemos
from mnemos.models.answering import AnswerTraining, answer_error, train_answers, with_blanks
from mnemos.models.end_to_end import MemN2N
from mnemos.tasks.babi import encode, vocabulary
from mnemos.tasks.walks import walks


def test_position_encoding_is_twice_the_papers_counted_from_the_middle():
    torch.manual_seed(0)
    network = MemN2N(9, width=4, slots=3, hops=1, longest=3)
    words = torch.tensor([[5, 2, 7, 0, 0], [3, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    embedded = network.embed(words)
    for row, numbers in enumerate(([5, 2, 7], [3], [])):
        expected = torch.zeros(4)
        for j, number in enumerate(numbers):
            dimension, place = (torch.arange(4) + 0.5) / 4, (j + 0.5) / 3
            weights = 2 * ((1 - place) - dimension * (1 - 2 * place))
            expected = expected + weights * network.embedding[number, :4]
        torch.testing.assert_close(embedded[row, :4], expected, rtol=1e-5, atol=1e-6)
    bag = MemN2N(9, width=4, slots=3, hops=1, longest=0)
    torch.testing.assert_close(bag.embed(words)[0], bag.embedding[[5, 2, 7]].sum(0))


@pytest.mark.parametrize("tying", ["adjacent", "layer_wise"])
def test_a_story_told_in_pieces_is_the_story_told_at_once(tying, tmp_path):
    torch.manual_seed(0)
    words = vocabulary(walks(20))
    questions = encode(walks(6, seed=1), words)
    network = MemN2N(len(words), width=8, slots=7, tying=tying)
    whole = network(questions.sentences, questions.told, questions.questions)
    state = network.tell(questions.sentences[:, :2])
    mnemos.save(tmp_path / "story", network.memory, state)
    state = network.tell(questions.sentences[:, 2:], mnemos.load(tmp_path / "story", network.memory))
    parts = network.ask(state, questions.questions)
    torch.testing.assert_close(parts.logits, whole.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.weights, whole.weights, rtol=1e-5, atol=1e-5)
    assert whole.weights.shape == (6, 3, 7)
    assert network.configuration() == {
        "vocabulary_size": len(words), "width": 8, "slots": 7, "hops": 3, "tying": tying, "longest": 12,
    }  # fmt: skip


def test_the_newest_place_is_learned_and_its_sentence_is_looked_at():
    torch.manual_seed(0)
    learn, choose = walks(600), walks(100, seed=1)
    words = vocabulary(learn)
    learned, chosen = encode(learn, words), encode(choose, words)
    network = MemN2N(len(words), width=20, slots=8, hops=1)
    training = AnswerTraining(epochs=12, linear_epochs=2)
    errors = train_answers(network, learned, chosen, training)
    assert errors[-1] == answer_error(network, chosen)
    assert errors[-1] <= 0.05
    weights = network(chosen.sentences, chosen.told, chosen.questions).weights[:, 0]
    place = chosen.supporting.int().argmax(1)
    assert (weights.argmax(1) == place).double().mean() > 0.9


def test_blanks_move_sentences_and_take_none_away_until_slots_are_full():
    learned = encode(walks(50), vocabulary(walks(50)))
    same = with_blanks(learned, 0.0, 5, torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(same, learned, strict=True))
    more = with_blanks(learned, 0.4, 20, torch.Generator().manual_seed(0))
    assert (more.told > learned.told).any()
    for row in range(50):
        spoken = more.sentences[row].any(-1)
        assert torch.equal(more.sentences[row][spoken], learned.sentences[row])
        assert torch.equal(more.supporting[row][spoken], learned.supporting[row])
        assert not spoken[more.told[row] :].any()
    few = with_blanks(learned, 0.4, 5, torch.Generator().manual_seed(0))
    assert (few.told == 5).all()
    assert torch.equal(few.sentences[:, -1], learned.sentences[:, -1])
