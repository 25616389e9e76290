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


@pytest.mark.parametrize("longest", [1, 2, 6])
def test_no_text_is_read_on_end_for_longer(longest):
    made = pieces(TEXTS, 2, 4, START, torch.Generator().manual_seed(0), longest=longest)
    tokens, targets, reset = joined([next(made) for _ in range(60)])
    for row, fresh in zip(tokens, reset, strict=True):
        read = [part.tolist() for part in row.tensor_split(fresh.nonzero().flatten().tolist()) if len(part)]
        for part in read[1:-1]:
            text = next(text.tolist() for text in TEXTS if part[-1] in text.tolist())
            if len(text) <= longest:
                assert part == [START, *text]
            else:
                assert part == text[text.index(part[0]) :][:longest]
        begun = {part[0] for part in read[1:-1]}
        assert begun >= set(range(10, 18 - longest))  # anywhere within a text
    assert (targets[:, :-1] == NOT_A_TARGET).equal(reset[:, 1:])


def test_texts_are_read_for_one_step_at_least():
    with pytest.raises(ValueError, match="longest must be at least 1, not 0"):
        next(pieces(TEXTS, 1, 4, START, torch.Generator(), longest=0))


@pytest.mark.parametrize("texts", [[], [torch.arange(3), torch.arange(1)]])
def test_texts_that_nothing_can_be_learned_from_are_refused(texts):
    with pytest.raises(ValueError, match="at least one, of at least two tokens"):
        next(pieces(texts, 1, 4, START, torch.Generator()))
