"""Streams of documents: nothing is lost between pieces, and every text begins with its mark."""

import pytest
import torch

from mnemos.tasks.reading import NOT_A_TARGET, pieces

TEXTS = [torch.arange(10, 17), torch.arange(20, 25)]
START = 99


def stream(rows, length, count, seed=0):
    made = pieces(TEXTS, rows, length, START, torch.Generator().manual_seed(seed))
    return [next(made) for _ in range(count)]


def joined(parts):
    return [torch.cat(part, dim=1) for part in zip(*parts, strict=True)]


def test_targets_are_what_follows_and_pieces_follow_each_other():
    tokens, targets, reset = joined(stream(3, 4, 20))
    follows = targets[:, :-1] != NOT_A_TARGET
    assert (targets[:, :-1] == tokens[:, 1:])[follows].all()
    assert torch.equal(~follows, reset[:, 1:])  # a text's end has nothing to say of the next text


def test_every_text_after_the_first_begins_with_its_mark_and_is_whole():
    tokens, _, reset = joined(stream(2, 5, 30))
    assert torch.equal(reset[:, 1:], (tokens == START)[:, 1:])
    assert reset[:, 0].all()
    for row in tokens.tolist():
        _, *whole, _ = " ".join(map(str, row)).split(str(START))
        assert {tuple(map(int, text.split())) for text in whole} == {tuple(text.tolist()) for text in TEXTS}


def test_the_seed_decides_and_rows_differ():
    first, again, other = (joined(stream(2, 6, 5, seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_a_text_longer_than_a_piece_and_one_shorter():
    long = [torch.arange(50)]
    [piece] = [next(pieces(long, 1, 8, START, torch.Generator().manual_seed(0)))]
    assert piece.tokens.shape == (1, 8)
    assert not piece.reset[:, 1:].any()


@pytest.mark.parametrize("texts", [[], [torch.arange(3), torch.arange(1)]])
def test_texts_that_nothing_can_be_learned_from_are_refused(texts):
    with pytest.raises(ValueError, match="at least one, of at least two tokens"):
        next(pieces(texts, 1, 4, START, torch.Generator()))
