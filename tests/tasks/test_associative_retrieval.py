"""Associative retrieval: what is asked was shown, once."""

import pytest
import torch

from mnemos.tasks.retrieval import BLANK, LETTERS, AssociativeRetrieval


def test_the_answer_is_the_digit_after_the_letter_that_is_asked():
    batch = AssociativeRetrieval(4).tokens(200, torch.Generator().manual_seed(0))
    assert batch.inputs.shape == (200, 11)
    assert (batch.inputs[:, 8:10] == BLANK).all()
    for tokens, target in zip(batch.inputs.tolist(), batch.targets[:, -1].tolist(), strict=True):
        letters, digits = tokens[:8:2], tokens[1:8:2]
        assert len(set(letters)) == 4
        assert all(LETTERS <= digit < BLANK for digit in digits)
        assert target == digits[letters.index(tokens[-1])]
    assert batch.scored.sum(1).eq(1).all()
    assert batch.scored[:, -1].all()


def test_more_pairs_than_letters_are_refused():
    with pytest.raises(ValueError, match="pairs must be 1 to 26, not 27"):
        AssociativeRetrieval(27)
