"""Associative retrieval: a few letters with a digit each, and then one of the letters again."""

from dataclasses import dataclass

import torch

from mnemos.tasks.task import Batch, TokenTask

LETTERS, DIGITS = 26, 10
BLANK = LETTERS + DIGITS


@dataclass(frozen=True)
class AssociativeRetrieval(TokenTask):
    """As in c9k8j3f1??c, to be answered by 9: Ba et al. 2016, section 4.1.

    Letters are tokens 0 to 25, all different in a sequence, digits 26 to 35, and ? is 36; a guess is right
    once in ten. Only the last step is scored.

    Args:
        pairs: 1 to 26.
    """

    pairs: int = 4
    vocabulary = BLANK + 1

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= LETTERS:
            raise ValueError(f"pairs must be 1 to {LETTERS}, not {self.pairs}")

    def tokens(self, rows: int, generator: torch.Generator) -> Batch:
        letters = torch.multinomial(torch.ones(rows, LETTERS), self.pairs, generator=generator)
        digits = LETTERS + torch.randint(DIGITS, (rows, self.pairs), generator=generator)
        asked = torch.randint(self.pairs, (rows, 1), generator=generator)
        blanks = torch.full((rows, 2), BLANK)
        shown = torch.stack([letters, digits], dim=2).flatten(1)
        inputs = torch.cat([shown, blanks, letters.gather(1, asked)], dim=1)
        targets = torch.zeros_like(inputs)
        targets[:, -1:] = digits.gather(1, asked)
        scored = torch.zeros_like(inputs, dtype=torch.bool)
        scored[:, -1] = True
        return Batch(inputs, targets, scored, torch.ones_like(scored))
