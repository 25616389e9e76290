"""Random sequences of several lengths: what the tasks over them share."""

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mnemos.tasks.task import Batch, Task

Range = tuple[int, int]  # least and most, both included


class Example(NamedTuple):
    """One sequence; the fields are those of a `Batch`."""

    inputs: Float[Tensor, "time input"]
    targets: Float[Tensor, "time output"] | Int[Tensor, " time"]
    scored: Bool[Tensor, " time"]


def padded(examples: Sequence[Example]) -> Batch:
    """The sequences side by side, padded with zeros on the right to the longest."""
    real = [torch.ones_like(example.scored) for example in examples]
    columns = (*zip(*examples, strict=True), real)
    return Batch(*(pad_sequence(list(column), batch_first=True) for column in columns))


class SequenceTask(Task):
    """A task over random sequences that are drawn one by one, a frozen dataclass of sizes and ranges."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def batch(self, rows: int, generator: torch.Generator) -> Batch:
        return padded([self._example(generator) for _ in range(rows)])

    @abstractmethod
    def _example(self, generator: torch.Generator) -> Example:
        """One sequence."""


def answered(inputs: Tensor, answers: Tensor) -> Example:
    """A sequence whose last steps are to be answered."""
    before = len(inputs) - len(answers)
    targets = torch.cat([answers.new_zeros(before, *answers.shape[1:]), answers])
    return Example(inputs, targets, torch.arange(len(inputs)) >= before)


def drawn(bounds: Range, generator: torch.Generator) -> int:
    """A number of a range, all equally likely."""
    return int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator))


def random_bits(count: int, width: int, generator: torch.Generator) -> Tensor:
    """Random vectors, (count, width)."""
    return torch.randint(2, (count, width), generator=generator).float()


def distinct_bits(count: int, width: int, generator: torch.Generator) -> Tensor:
    """Random vectors of bits, no two alike."""
    chooser = random.Random(int(torch.randint(2**62, (), generator=generator)))
    chosen = torch.tensor(chooser.sample(range(2**width), count))
    return ((chosen.unsqueeze(1) >> torch.arange(width)) & 1).float()


def check_ranges(sizes: Any) -> None:
    """Raises ValueError if a dataclass has a size below 1, or a pair that is no range."""
    for field in fields(sizes):
        given = getattr(sizes, field.name)
        if isinstance(given, int) and given < 1:
            raise ValueError(f"{field.name} must be at least 1, not {given}")
        if isinstance(given, tuple) and not 1 <= given[0] <= given[1]:
            raise ValueError(f"{field.name} must be (least, most), from 1 up, not {given}")
