"""Continual learning: classes that come context by context, and three things that can be asked about them.

Van de Ven & Tolias 2018, "Generative replay with feedback connections as a general strategy for continual
learning" (arXiv 1809.10635), and 2019, "Three scenarios for continual learning" (arXiv 1904.07734). A
context is what is learned at one time. Its labels are no one else's: with n classes in each, context i has
the labels i·n to (i + 1)·n - 1, so that a label says its context, also when its example is replayed later.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar, final

import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped, UInt8
from torch import Tensor
from torch.nn import functional

from mnemos.tasks.mnist import Digits

Kind = TypeVar("Kind", bound="Scenario")  # beartype refuses Self in a method that it decorates alone


class Context(NamedTuple):
    """What is learned at one time: images in one row, paper 0 and ink up to 1, and their labels."""

    train_inputs: Float[Tensor, "train pixels"]
    train_labels: Int64[Tensor, " train"]
    test_inputs: Float[Tensor, "test pixels"]
    test_labels: Int64[Tensor, " test"]
    classes: tuple[
        int, ...
    ]  # the digit that each label of the context stands for, in the order of the labels


def split(digits: Digits, classes_per_context: int = 2, order: Sequence[int] | None = None) -> list[Context]:
    """Split MNIST: a few digits at a time.

    Args:
        classes_per_context: a divisor of the number of digits.
        order: the digits as they are to be learned; ascending if None. The label of a digit is its place in
            the order.

    Raises:
        ValueError: the contexts would differ in size, or the order is not one of all digits.
    """
    total = _count(digits)
    if classes_per_context < 1 or total % classes_per_context:
        raise ValueError(f"classes_per_context must divide {total} classes, not be {classes_per_context}")
    learned = list(range(total)) if order is None else list(order)
    if sorted(learned) != list(range(total)):
        raise ValueError(f"order must have each class from 0 to {total - 1} once, not be {learned}")
    labels = torch.tensor(learned).argsort()  # of each digit
    train, test = labels[digits.train_labels], labels[digits.test_labels]
    contexts = []
    for start in range(0, total, classes_per_context):
        classes = range(start, start + classes_per_context)
        chosen, asked = (((part >= start) & (part < classes.stop)) for part in (train, test))
        contexts.append(
            Context(
                _pixels(digits.train_images[chosen]),
                train[chosen],
                _pixels(digits.test_images[asked]),
                test[asked],
                tuple(learned[label] for label in classes),
            )
        )
    return contexts


def permuted(digits: Digits, contexts: int, seed: int) -> Iterator[Context]:
    """Permuted MNIST: all digits in every context, their pixels in an order of its own.

    The contexts are made one by one, as each of MNIST takes 220 MB. All are permuted, the first one too. Van
    de Ven's have 32 by 32 pixels: images that were padded by 2 before they came here.

    Args:
        contexts: how many.
        seed: which orders; the first ones are the same for any number of contexts.

    Raises:
        ValueError: there is no context.
    """
    if contexts < 1:
        raise ValueError(f"contexts must be at least 1, not {contexts}")
    classes = _count(digits)
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(digits.train_images[0].numel(), generator=generator) for _ in range(contexts)]
    return (
        Context(
            _pixels(digits.train_images.flatten(1)[:, order]),
            digits.train_labels + number * classes,
            _pixels(digits.test_images.flatten(1)[:, order]),
            digits.test_labels + number * classes,
            tuple(range(classes)),
        )
        for number, order in enumerate(orders)
    )


def minibatches(
    inputs: Shaped[Tensor, "examples ..."],
    targets: Shaped[Tensor, "examples ..."],
    rows: int,
    steps: int,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Exactly so many minibatches: all examples in random order, again and again in another one.

    What is left of an order and does not fill a minibatch is passed over, as in van de Ven's experiments.

    Args:
        rows: of a minibatch, at most as many as there are examples.
        steps: how many minibatches.

    Raises:
        ValueError: sizes that do not fit.
    """
    if len(inputs) != len(targets):
        raise ValueError(f"targets must be of {len(inputs)} examples like inputs, not of {len(targets)}")
    if not 1 <= rows <= len(inputs):
        raise ValueError(f"rows must be from 1 to the {len(inputs)} examples, not {rows}")
    if steps < 0:
        raise ValueError(f"steps must not be negative, but is {steps}")

    def drawn() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            if len(order) < rows:
                order = torch.randperm(len(inputs), generator=generator, device=generator.device)
                order = order.to(inputs.device)
            chosen, order = order[:rows], order[rows:]
            yield inputs[chosen], targets[chosen]

    return drawn()


@dataclass(frozen=True)
class Scenario(ABC):
    """What a network is asked about an example, and which of its outputs, all logits, may answer.

    Args:
        contexts: that there are in all.
        classes: in each.
        seen: how many contexts have begun; all if None. See `during`.
    """

    contexts: int
    classes: int
    seen: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("contexts", self.contexts), ("classes", self.classes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 1 <= self.begun <= self.contexts:
            raise ValueError(f"seen must be from 1 to {self.contexts} contexts, not {self.seen}")

    @property
    def begun(self) -> int:
        """How many contexts have begun."""
        return self.contexts if self.seen is None else self.seen

    def during(self: Kind, context: int) -> Kind:
        """The scenario while that context is learned, from 0, and until the next one begins."""
        return replace(self, seen=context + 1)

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many the network has."""

    @abstractmethod
    def competing(self, labels: Int[Tensor, " batch"]) -> Bool[Tensor, "batch outputs"]:
        """The outputs that may answer for an example of each label."""

    def targets(self, labels: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """The output that is right for each label."""
        return labels % self.outputs

    def masked(
        self, outputs: Float[Tensor, "batch outputs"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch outputs"]:
        """The outputs, with -inf for those that may not answer.

        Raises:
            ValueError: the network has another number of outputs.
        """
        if outputs.shape[1] != self.outputs:
            raise ValueError(f"outputs must be {self.outputs} for each example, not {outputs.shape[1]}")
        return outputs.masked_fill(~self.competing(labels), float("-inf"))

    def loss(
        self, outputs: Float[Tensor, "batch outputs"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy in nats an example; an output that may not answer receives no gradient.

        Raises:
            ValueError: a label is of no context that has begun, or the network has another number of outputs.
        """
        limit = self.begun * self.classes
        if labels.numel() and not 0 <= labels.min() <= labels.max() < limit:
            raise ValueError(
                f"labels must be from 0 to {limit - 1}, of {self.begun} contexts that have begun, "
                f"not from {labels.min()} to {labels.max()}"
            )
        return functional.cross_entropy(self.masked(outputs, labels), self.targets(labels))

    def right(
        self, outputs: Float[Tensor, "batch outputs"], labels: Int[Tensor, " batch"]
    ) -> Bool[Tensor, " batch"]:
        """Whether the highest output that may answer is the right one."""
        return self.masked(outputs, labels).argmax(1) == self.targets(labels)


@final
@dataclass(frozen=True)
class TaskIncremental(Scenario):
    """The context of an example is known: only its own classes compete, each with an output."""

    @property
    def outputs(self) -> int:
        return self.contexts * self.classes

    def competing(self, labels: Int[Tensor, " batch"]) -> Bool[Tensor, "batch outputs"]:
        every = torch.arange(self.outputs, device=labels.device)
        return every // self.classes == (labels // self.classes).unsqueeze(1)


@final
@dataclass(frozen=True)
class DomainIncremental(Scenario):
    """The context is not known and not asked for: which class within its context an example is of."""

    @property
    def outputs(self) -> int:
        return self.classes

    def competing(self, labels: Int[Tensor, " batch"]) -> Bool[Tensor, "batch outputs"]:
        return torch.ones(len(labels), self.outputs, dtype=torch.bool, device=labels.device)


@final
@dataclass(frozen=True)
class ClassIncremental(Scenario):
    """The context is not known and must be told as well: all classes of the contexts so far compete.

    A class that was not yet seen does not answer, in training nor in a test; van de Ven's code lets it do so
    in tests. After the last context they are the same.
    """

    @property
    def outputs(self) -> int:
        return self.contexts * self.classes

    def competing(self, labels: Int[Tensor, " batch"]) -> Bool[Tensor, "batch outputs"]:
        every = torch.arange(self.outputs, device=labels.device)
        return (every < self.begun * self.classes).expand(len(labels), -1)


def _count(digits: Digits) -> int:
    """Of classes, by the highest label."""
    return 1 + max(int(digits.train_labels.max()), int(digits.test_labels.max()))


def _pixels(images: UInt8[Tensor, "images ..."]) -> Float[Tensor, "images pixels"]:
    return images.flatten(1).float() / 255
