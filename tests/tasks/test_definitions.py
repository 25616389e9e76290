import pytest
import torch

from mnemos.tasks import definitions


def test_what_is_asked_for_was_said_before_in_the_same_document() -> None:
    generator = torch.Generator().manual_seed(0)
    stream = definitions.documents(3, 32, (8, 0, 4, 4), names=4, values=5, generator=generator)
    meanings: list[dict[int, int]] = [{}, {}, {}]
    asked = 0
    for _, piece in zip(range(8), stream, strict=False):
        assert piece.tokens.max() < definitions.vocabulary(4, 5)
        if piece.begins:
            meanings = [{}, {}, {}]
        for known, tokens, targets in zip(
            meanings, piece.tokens.tolist(), piece.targets.tolist(), strict=True
        ):
            for place, (token, target) in enumerate(zip(tokens, targets, strict=True)):
                is_name = definitions.FILLER <= token < definitions.FILLER + 4
                assert (target >= 0) == (is_name and token in known)
                if is_name:
                    value = tokens[place + 1] - definitions.FILLER - 4
                    assert known.setdefault(token, value) == value
                    assert target in (-1, value)
                    asked += target >= 0
    assert asked == 2 * 3 * (4 + 4 + 4)


def test_uses_are_checked() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="uses must be multiples of 4 of at most 16, not"):
        next(definitions.documents(1, 32, (4, 6), names=4, values=5, generator=generator))
    with pytest.raises(ValueError, match="at most 16"):
        next(definitions.documents(1, 32, (20,), names=4, values=5, generator=generator))
