"""What has to be told from what is to be passed over: selective copying and induction heads.

Gu & Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", section 4.1; induction
heads after Olsson et al. 2022, "In-context Learning and Induction Heads".
"""

from dataclasses import dataclass

import torch

from mnemos.tasks.sequences import Range, check_ranges, drawn
from mnemos.tasks.task import Batch, TokenTask


@dataclass(frozen=True)
class SelectiveCopying(TokenTask):
    """Tokens at random places among noise, and then a mark for each, to be answered by them in their order.

    Where the tokens lie is another matter in every sequence: no filter of fixed lags can gather them. Token 0
    is noise and token 1 the mark; the others are copied. The paper has 16 items among 4,096 steps.

    Args:
        length: steps before the first mark.
        items: tokens to be copied.
    """

    vocabulary: int = 16
    length: int = 256
    items: int = 16

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.vocabulary < 4:
            raise ValueError(f"vocabulary must be at least 4, noise and mark included, not {self.vocabulary}")
        if self.items > self.length:
            raise ValueError(f"items must be at most the length of {self.length}, not {self.items}")

    def tokens(self, rows: int, generator: torch.Generator) -> Batch:
        items = torch.randint(2, self.vocabulary, (rows, self.items), generator=generator)
        places = torch.rand(rows, self.length, generator=generator).argsort(1)[:, : self.items].sort(1).values
        noise, marks = items.new_zeros(rows, self.length), torch.ones_like(items)
        inputs = torch.cat([noise.scatter(1, places, items), marks], dim=1)
        scored = torch.cat([noise, marks], dim=1).bool()
        return Batch(inputs, torch.cat([noise, items], dim=1), scored, torch.ones_like(scored))


@dataclass(frozen=True)
class InductionHeads(TokenTask):
    """A mark with a token behind it somewhere among random tokens, and the mark again at the end.

    What followed it then is the answer. Token 0 is the mark and comes nowhere else. All sequences of a batch
    have one length, drawn anew for each batch. The paper trains at 256 and judges at up to 2^20.

    Args:
        lengths: of a sequence, both marks included, at least 3.
    """

    vocabulary: int = 16
    lengths: Range = (64, 256)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.vocabulary < 3:
            raise ValueError(f"vocabulary must be at least 3, the mark included, not {self.vocabulary}")
        if self.lengths[0] < 3:
            raise ValueError(f"lengths must be at least 3, not {self.lengths}")

    def tokens(self, rows: int, generator: torch.Generator) -> Batch:
        length = drawn(self.lengths, generator)
        inputs = torch.randint(1, self.vocabulary, (rows, length), generator=generator)
        place = torch.randint(length - 2, (rows, 1), generator=generator)
        inputs.scatter_(1, place, 0)[:, -1] = 0
        last = torch.arange(length).expand(rows, -1) == length - 1
        targets = torch.where(last, inputs.gather(1, place + 1), 0)
        return Batch(inputs, targets, last, torch.ones_like(last))
