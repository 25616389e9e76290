"""Pairs that are told segment by segment, and asked for when many segments of nothing have passed."""

from dataclasses import dataclass

import torch

from mnemos.tasks.task import Batch, TokenTask

FILLER = 8  # words that mean nothing


@dataclass(frozen=True)
class SegmentedRecall(TokenTask):
    """Keys with their values, then segments that mean nothing, then one segment of questions.

    The associative retrieval of Rodkin et al. 2024 with a distance between what is told and what is asked. A
    question is a key alone, to be answered by its value in the same step. Tokens are words that mean nothing,
    then keys, then values; no key comes twice among the pairs, and a guess is right once in `values`.

    Args:
        segment: tokens of a segment, even: half as many pairs are told in one.
        pairs: in all, a multiple of those in a segment.
        gap: segments that mean nothing, between the last pair and the questions.
        keys: to choose from, at least `pairs`.
        values: to choose from.
        scattered: whether segments of pairs and of nothing come in any order, another one in every document.
    """

    segment: int = 4
    pairs: int = 4
    gap: int = 0
    keys: int = 64
    values: int = 16
    scattered: bool = False

    def __post_init__(self) -> None:
        if self.segment < 2 or self.segment % 2:
            raise ValueError(f"segment must be even and at least 2, not {self.segment}")
        if self.pairs < 1 or 2 * self.pairs % self.segment:
            raise ValueError(f"pairs must fill segments of {self.segment // 2} pairs, not {self.pairs}")
        if self.pairs > self.keys:
            raise ValueError(f"pairs must be at most the {self.keys} keys, not {self.pairs}")
        if self.gap < 0 or self.values < 2:
            raise ValueError(f"gap must be at least 0, and values 2, not {self.gap} and {self.values}")

    @property
    def vocabulary(self) -> int:  # type: ignore[override]  # follows from the sizes
        return FILLER + self.keys + self.values

    def tokens(self, rows: int, generator: torch.Generator) -> Batch:
        keys = FILLER + torch.rand(rows, self.keys, generator=generator).argsort(1)[:, : self.pairs]
        values = torch.randint(self.values, (rows, self.pairs), generator=generator) + FILLER + self.keys
        told = torch.stack([keys, values], dim=2).flatten(1)
        nothing = torch.randint(FILLER, (rows, self.gap * self.segment), generator=generator)
        count = min(self.pairs, self.segment)
        chosen = torch.rand(rows, self.pairs, generator=generator).argsort(1)[:, :count]
        asked = torch.randint(FILLER, (rows, self.segment), generator=generator)
        asked[:, :count] = keys.gather(1, chosen)
        before = torch.cat([told, nothing], dim=1).unflatten(1, (-1, self.segment))
        if self.scattered:
            order = torch.rand(before.shape[:2], generator=generator).argsort(1)
            before = before.gather(1, order.unsqueeze(2).expand_as(before))
        inputs = torch.cat([before.flatten(1), asked], dim=1)
        targets, scored = torch.zeros_like(inputs), torch.zeros_like(inputs, dtype=torch.bool)
        start = inputs.shape[1] - self.segment
        targets[:, start : start + count] = values.gather(1, chosen)
        scored[:, start : start + count] = True
        return Batch(inputs, targets, scored, torch.ones_like(scored))
