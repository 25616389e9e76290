"""Recall: what came after this, and what belongs to this?

Graves, Wayne & Danihelka 2014, section 4.3; key-value recall is the plainest question to a memory.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from mnemos.tasks.sequences import (
    Example,
    Range,
    SequenceTask,
    answered,
    distinct_bits,
    drawn,
)
from mnemos.tasks.task import BitTask, ClassTask


@dataclass(frozen=True)
class AssociativeRecall(SequenceTask, BitTask):
    """Items in a row, one of them again between two question marks, and then the item after it: section 4.3.

    An item is a few vectors behind a delimiter. Delimiter and question mark have a channel each. No item
    comes twice.

    Args:
        width: bits of a vector.
        item_length: vectors of an item.
        items: in a sequence.
    """

    width: int = 6
    item_length: int = 3
    items: Range = (2, 6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.items[0] < 2:
            raise ValueError(f"items must be at least 2, one to ask by and one to answer, not {self.items}")
        _check_distinct("items", self.items[1], self.width * self.item_length)

    @property
    def input_size(self) -> int:
        return self.width + 2

    @property
    def output_size(self) -> int:
        return self.width

    def _example(self, generator: torch.Generator) -> Example:
        count, length = drawn(self.items, generator), self.item_length
        items = distinct_bits(count, length * self.width, generator).view(count, length, self.width)
        asked = drawn((0, count - 2), generator)
        marks = functional.one_hot(torch.tensor([0] * count + [1]), 2).float()
        shown = torch.zeros(count + 1, length + 1, self.input_size)
        shown[:, 0, self.width :] = marks
        shown[:, 1:, : self.width] = torch.cat([items, items[asked : asked + 1]])
        inputs = torch.cat([shown.flatten(0, 1), shown[-1, :1], torch.zeros(length, self.input_size)])
        return answered(inputs, items[asked + 1])


@dataclass(frozen=True)
class KeyValueRecall(SequenceTask, ClassTask):
    """Keys with their values, and then keys alone, each to be answered by its value in the same step.

    A step is a key of random bits, its value as one of so many symbols, and a channel that is 1 in a
    question. No key comes twice, in pairs or in questions.

    Args:
        width: bits of a key.
        values: symbols to choose from; guessing is right one time in so many.
        pairs: in a sequence.
        questions: at the end of it; at most the least of `pairs`.
    """

    width: int = 8
    values: int = 8
    pairs: Range = (6, 6)
    questions: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_distinct("pairs", self.pairs[1], self.width)
        if self.questions > self.pairs[0]:
            raise ValueError(f"questions must be at most the {self.pairs[0]} pairs, not {self.questions}")

    @property
    def input_size(self) -> int:
        return self.width + self.values + 1

    @property
    def output_size(self) -> int:
        return self.values

    def _example(self, generator: torch.Generator) -> Example:
        count = drawn(self.pairs, generator)
        keys = distinct_bits(count, self.width, generator)
        values = torch.randint(self.values, (count,), generator=generator)
        asked = torch.randperm(count, generator=generator)[: self.questions]
        inputs = torch.zeros(count + self.questions, self.input_size)
        inputs[:, : self.width] = torch.cat([keys, keys[asked]])
        inputs[:count, self.width : -1] = functional.one_hot(values, self.values).float()
        inputs[count:, -1] = 1
        return answered(inputs, values[asked])


def _check_distinct(name: str, most: int, width: int) -> None:
    """Raises ValueError unless so many vectors of so many bits can all differ."""
    if not (width <= 62 and most <= 2**width):
        raise ValueError(f"{name} must be at most 2^bits, and bits at most 62, not {most} with {width} bits")
