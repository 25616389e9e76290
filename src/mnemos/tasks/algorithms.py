"""The tasks of the Neural Turing Machine: small algorithms over random bits.

Graves, Wayne & Danihelka 2014, section 4; the fifth, associative recall, is in `tasks.recall`. Each task is a
frozen dataclass of its sizes, with the paper's as defaults. A pair of numbers is a range from which every
sequence draws its own. A task with another range is the same task, so that a network that was trained on
short sequences is tried on long ones: `dataclasses.replace(task, lengths=(80, 80))`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mnemos.tasks.sequences import Example, Range, SequenceTask, answered, drawn, random_bits
from mnemos.tasks.task import Batch, BitTask


@dataclass(frozen=True)
class Copy(SequenceTask, BitTask):
    """Random vectors, a delimiter on a channel of its own, and then the vectors again: section 4.1.

    Args:
        width: bits of a vector.
        lengths: of the sequence to copy.
    """

    width: int = 8
    lengths: Range = (1, 20)

    @property
    def input_size(self) -> int:
        return self.width + 1

    @property
    def output_size(self) -> int:
        return self.width

    def _example(self, generator: torch.Generator) -> Example:
        length = drawn(self.lengths, generator)
        vectors = random_bits(length, self.width, generator)
        inputs = torch.zeros(2 * length + 1, self.input_size)
        inputs[:length, : self.width] = vectors
        inputs[length, self.width] = 1
        return answered(inputs, vectors)


@dataclass(frozen=True)
class RepeatCopy(SequenceTask, BitTask):
    """Random vectors, how often to say them again, and then so many copies and an end marker: section 4.2.

    The number stands on a channel of its own, scaled to mean 0 and variance 1; the marker is the last bit of
    an output. The paper has no delimiter beside the number, but a number that is scaled to 0 cannot be seen.

    Args:
        width: bits of a vector.
        lengths: of the sequence to copy.
        repeats: copies.
        scaled_over: the repeats to whose mean and variance the number is scaled; None means `repeats`. Give
            the range that a network was trained on where it is tried on another.
    """

    width: int = 8
    lengths: Range = (1, 10)
    repeats: Range = (1, 10)
    scaled_over: Range | None = None

    @property
    def input_size(self) -> int:
        return self.width + 2

    @property
    def output_size(self) -> int:
        return self.width + 1

    def scaled(self, repeats: float | int) -> float:
        """The number as it stands in the input."""
        least, most = self.scaled_over or self.repeats
        variance = ((most - least + 1) ** 2 - 1) / 12
        return (repeats - (least + most) / 2) / math.sqrt(variance or 1)

    def _example(self, generator: torch.Generator) -> Example:
        length, repeats = drawn(self.lengths, generator), drawn(self.repeats, generator)
        vectors = random_bits(length, self.width, generator)
        answers = torch.zeros(repeats * length + 1, self.output_size)
        answers[:-1, : self.width] = vectors.repeat(repeats, 1)
        answers[-1, self.width] = 1
        inputs = torch.zeros(length + 1 + len(answers), self.input_size)
        inputs[:length, : self.width] = vectors
        inputs[length, self.width :] = torch.tensor([1, self.scaled(repeats)])
        return answered(inputs, answers)


@dataclass(frozen=True)
class DynamicNGrams(SequenceTask, BitTask):
    """The next bit, whose chance is set by the bits before it, anew in each sequence: section 4.4.

    For each context the chance of a one is drawn from Beta(1/2, 1/2). The bits of the first are fair.
    Chance cannot be predicted away: the best that can be done is `optimal`.

    Args:
        context: bits that the next one depends on, N - 1 for N-grams.
        length: bits of a sequence.
    """

    context: int = 5
    length: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length <= self.context:
            raise ValueError(f"length must be above context, {self.context}, not {self.length}")

    @property
    def input_size(self) -> int:
        return 1

    @property
    def output_size(self) -> int:
        return 1

    def optimal(self, batch: Batch) -> Float[Tensor, "batch time output"]:
        """The outputs of the best predictor, for `loss` and `error`; 0 at steps that are not scored.

        With N1 ones and N0 zeros seen in the same context so far, P(1) = (N1 + 1/2) / (N1 + N0 + 1): eq. 10.
        """
        contexts = self._contexts(batch.inputs.squeeze(-1))
        answers = batch.targets[:, self.context - 1 :]
        # What followed a context: one more zero, or one more one. It counts from the next step on.
        followed = torch.cat([1 - answers, answers], dim=-1).unsqueeze(2)
        visits = functional.one_hot(contexts, 2**self.context).unsqueeze(-1) * followed
        before = visits.cumsum(1) - visits
        counts = before[functional.one_hot(contexts, 2**self.context).bool()].view(*contexts.shape, 2)
        zeros, ones = (counts + 0.5).unbind(-1)
        return functional.pad((ones / zeros).log(), (self.context - 1, 0)).unsqueeze(-1)

    def _example(self, generator: torch.Generator) -> Example:
        # Beta(1/2, 1/2) is the arcsine distribution, whose quantiles have a closed form.
        chances = (torch.rand(2**self.context, generator=generator) * math.pi / 2).sin().square().tolist()
        bits = random_bits(1, self.context, generator)[0].long().tolist()
        context = sum(bit << place for place, bit in enumerate(bits))
        for draw in torch.rand(self.length - self.context, generator=generator).tolist():
            bits.append(int(draw < chances[context]))
            context = context >> 1 | bits[-1] << self.context - 1
        whole = torch.tensor(bits).float().unsqueeze(-1)
        return Example(whole[:-1], whole[1:], torch.arange(self.length - 1) >= self.context - 1)

    def _contexts(self, bits: Float[Tensor, "batch time"]) -> Int[Tensor, "batch contexts"]:
        """The number of every context, in the order of time; a later bit counts for more."""
        return (bits.long().unfold(1, self.context, 1) << torch.arange(self.context)).sum(-1)


@dataclass(frozen=True)
class PrioritySort(SequenceTask, BitTask):
    """Random vectors with priorities, a delimiter, and then those of highest priority in order: section 4.5.

    A vector's priority stands on a channel of its own, uniform in -1 to 1.

    Args:
        width: bits of a vector.
        lengths: vectors to be sorted.
        answers: how many are to be said, from the highest priority down; at most the least of `lengths`.
    """

    width: int = 8
    lengths: Range = (20, 20)
    answers: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answers > self.lengths[0]:
            raise ValueError(f"answers must be at most the {self.lengths[0]} vectors, not {self.answers}")

    @property
    def input_size(self) -> int:
        return self.width + 2

    @property
    def output_size(self) -> int:
        return self.width

    def _example(self, generator: torch.Generator) -> Example:
        length = drawn(self.lengths, generator)
        vectors = random_bits(length, self.width, generator)
        priorities = torch.rand(length, generator=generator) * 2 - 1
        inputs = torch.zeros(length + 1 + self.answers, self.input_size)
        inputs[:length, : self.width], inputs[:length, self.width] = vectors, priorities
        inputs[length, self.width + 1] = 1
        return answered(inputs, vectors[priorities.argsort(descending=True)[: self.answers]])
