import torch

from mnemos.memories import EntNet
from mnemos.models.entity import EntityNetwork, MaskedWords


def test_told_in_pieces_is_told_at_once():
    torch.manual_seed(0)
    network = EntityNetwork(EntNet(4, slots=3), answers=5)
    sentences, question = torch.randn(2, 6, 4), torch.randn(2, 4)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    _, state = network.memory(sentences[:, :2])
    parts = network(sentences[:, 2:], question, mask[:, 2:], state)
    torch.testing.assert_close(parts, network(sentences, question, mask))
    alone = network(sentences[1:, :4], question[1:])
    torch.testing.assert_close(parts[1:], alone)


def test_words_count_by_their_places_and_no_word_counts_nothing():
    torch.manual_seed(0)
    words = MaskedWords(7, words=4, width=3)
    words.places.data.normal_()
    embedded = words(torch.tensor([[5, 2, 0, 0], [5, 2, 0, 0]]))
    expected = words.embedding.weight[5] * words.places[0] + words.embedding.weight[2] * words.places[1]
    torch.testing.assert_close(embedded[0], expected)
    assert not words(torch.zeros(1, 4, dtype=torch.int64)).any()


def test_what_is_known_after_each_sentence_is_what_the_story_up_to_there_leaves():
    torch.manual_seed(0)
    network = EntityNetwork(EntNet(4, slots=3), answers=5)
    sentences, questions = torch.randn(2, 6, 4), torch.randn(2, 2, 4)
    known = network.follow(sentences)
    for time in (1, 6):
        _, state = network.memory(sentences[:, :time])
        torch.testing.assert_close(known[:, time - 1], state.memory)
    both = network.ask(state, questions)
    for place in range(2):
        torch.testing.assert_close(both[:, place], network(sentences, questions[:, place]))
