"""Multi-query associative recall: several keys that were shown with their values are asked for later.

Arora et al. 2024, "Zoology: Measuring and Improving Recall in Efficient Language Models", section 3 and
appendix E.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mnemos.tasks.task import Batch, TokenTask


@dataclass(frozen=True)
class MultiQueryRecall(TokenTask):
    """Pairs at the beginning, then each key once more among random tokens, to be answered by its value.

    Keys are of the first half of the vocabulary and values of the second; none comes twice among the pairs.
    The paper's sizes of (length, pairs) are (64, 4), (128, 8), (256, 16) and (512, 64) with a vocabulary of
    8,192; chance is 2 / vocabulary.

    Between the questions the paper has any random token, which may be a key of the same sequence. Where the
    vocabulary is small that is often, and such a key looks as if it were bound anew: here the tokens between
    are never keys of the sequence.

    Args:
        length: of a sequence, even, at least 4 x pairs.
        power: α of the distribution of the distance from the pairs to a question, which falls as n^(α - 1)
            (the paper's `power_a`); 1 for a uniform one.
    """

    vocabulary: int = 256
    length: int = 64
    pairs: int = 8
    power: float = 0.01

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= self.vocabulary // 2 or self.vocabulary % 2:
            raise ValueError(
                f"pairs must be 1 to half of an even vocabulary, not {self.pairs} of {self.vocabulary} tokens"
            )
        if self.length < 4 * self.pairs or self.length % 2:
            raise ValueError(f"length must be even and at least 4 x pairs, not {self.length}")
        if not 0 < self.power <= 1:
            raise ValueError(f"power must be above 0 and at most 1, not {self.power}")

    def tokens(self, rows: int, generator: torch.Generator) -> Batch:
        half, shown = self.vocabulary // 2, 2 * self.pairs
        keys = _chosen(torch.ones(half), rows, self.pairs, generator)
        values = half + _chosen(torch.ones(half), rows, self.pairs, generator)
        places = torch.arange(1, (self.length - shown) // 2 + 1)
        gaps = _chosen(places.double() ** (self.power - 1), rows, self.pairs, generator)
        inputs = self._others(keys, generator)
        inputs[:, :shown] = torch.stack([keys, values], dim=2).flatten(1)
        inputs.scatter_(1, shown + 2 * gaps, keys)
        targets = torch.zeros_like(inputs).scatter_(1, shown + 2 * gaps, values)
        scored = torch.zeros_like(inputs, dtype=torch.bool).scatter_(1, shown + 2 * gaps, True)
        return Batch(inputs, targets, scored, torch.ones_like(scored))

    def _others(self, keys: Tensor, generator: torch.Generator) -> Tensor:
        """Random tokens that are no keys of their row."""
        drawn = torch.randint(self.vocabulary - self.pairs, (len(keys), self.length), generator=generator)
        for key in keys.sort(dim=1).values.split(1, dim=1):
            drawn = drawn + (drawn >= key)  # what is drawn counts only the tokens that are none
        return drawn


def _chosen(weights: Tensor, rows: int, count: int, generator: torch.Generator) -> Tensor:
    """For every row so many different numbers, one after the other with the given odds."""
    return torch.multinomial(weights.expand(rows, -1), count, generator=generator)
