"""What every task is: a source of batches, a loss to learn by, and an error to be judged by."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


class Batch(NamedTuple):
    """Sequences of several lengths, padded on the right."""

    inputs: Float[Tensor, "batch time input"] | Int[Tensor, "batch time"]  # the latter of `TokenTask.tokens`
    targets: Float[Tensor, "batch time output"] | Int[Tensor, "batch time"]
    scored: Bool[Tensor, "batch time"]  # steps whose outputs count
    real: Bool[Tensor, "batch time"]  # false where there is only padding: the mask of `Memory.forward`


class Task(ABC):
    """A source of batches and a score. A concrete task is a frozen dataclass of its sizes."""

    @property
    @abstractmethod
    def input_size(self) -> int:
        """Width of an input."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Width of an output."""

    @abstractmethod
    def batch(self, rows: int, generator: torch.Generator) -> Batch:
        """That many new sequences; the same generator in the same state gives the same ones."""

    def unseen(self) -> "Task":
        """What it is judged by while it is learned: itself, unless sequences come from a fixed collection."""
        return self

    @abstractmethod
    def loss(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> Float[Tensor, ""]:
        """What training makes small."""

    @abstractmethod
    def error(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> float:
        """The share of what was to be answered that is wrong, 0 to 1."""


class BitTask(Task):
    """Every scored step is to answer a vector of bits; outputs are logits."""

    def loss(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy in nats a bit."""
        return functional.binary_cross_entropy_with_logits(
            outputs[batch.scored], batch.targets[batch.scored].to(outputs)
        )

    def error(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> float:
        """The share of wrong bits."""
        wrong = (outputs[batch.scored] > 0) != (batch.targets[batch.scored] > 0.5)
        return wrong.double().mean().item()


class ClassTask(Task):
    """Every scored step is to answer one of `output_size` classes; outputs are logits."""

    def loss(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy in nats an answer."""
        return functional.cross_entropy(outputs[batch.scored], batch.targets[batch.scored])

    def error(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> float:
        """The share of wrong answers."""
        wrong = outputs[batch.scored].argmax(-1) != batch.targets[batch.scored]
        return wrong.double().mean().item()


class TokenTask(ClassTask):
    """A task over tokens, which are also the answers.

    `batch` has them one-hot, for a network of vectors, whose first linear map is then their embedding;
    `tokens` gives the same sequences as they are, for a network that has an embedding. Losses and errors
    take either.
    """

    vocabulary: int

    @property
    def input_size(self) -> int:
        return self.vocabulary

    @property
    def output_size(self) -> int:
        return self.vocabulary

    @abstractmethod
    def tokens(self, rows: int, generator: torch.Generator) -> Batch:
        """That many new sequences, whose inputs are tokens from 0 to `vocabulary` - 1, (batch, time)."""

    def batch(self, rows: int, generator: torch.Generator) -> Batch:
        batch = self.tokens(rows, generator)
        return batch._replace(inputs=functional.one_hot(batch.inputs, self.vocabulary).float())
