"""What studies of continual learning compare: ways to learn context after context, and their answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import mnemos
from mnemos.consolidation import (
    AnalyticReadout,
    Consolidator,
    Episodes,
    FeedbackNetwork,
    GenerativeClassifier,
    ICaRL,
    NearestMean,
    RandomFeatures,
    Term,
    VariationalAutoencoder,
)
from mnemos.consolidation.complementary import recall
from mnemos.consolidation.rehearsal import Rehearsal
from mnemos.progress import Advance
from mnemos.studies.fit import descend
from mnemos.tasks.contexts import Context, Scenario, minibatches

Answer = Callable[[Tensor, Tensor], Tensor]  # inputs and labels to outputs; of labels, only what is told
ROWS, RATE, NEIGHBOURS, STORE_SHARE = 128, 1e-3, 5, 0.3
FEATURES, RIDGE = 4000, 1e-3  # of the analytic readout


@dataclass
class Course:
    """One run: what is asked, how long every context lasts, and by which chance.

    Args:
        scenario: with all contexts.
        steps: of a context.
        seed: of weights, batches and whatever is drawn.
        width: of the two hidden layers.
        exemplars: of a class, for methods with a fast store.
    """

    scenario: Scenario
    steps: int
    seed: int
    width: int = 400
    exemplars: int = 100
    now: Scenario = field(init=False)
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.scenario.during(0)
        self.generator = torch.Generator().manual_seed(self.seed)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """As it is asked now, so that what is replayed is asked as what is new."""
        return self.now.loss(outputs, labels)

    def allowed(self, outputs: Float[Tensor, "rows outputs"]) -> Float[Tensor, "rows allowed"]:
        """The outputs that compete in the latest context."""
        label = torch.tensor([(self.now.begun - 1) * self.now.classes], device=outputs.device)
        return outputs[:, self.now.competing(label)[0]]

    def episodes(self) -> Episodes:
        """A fast store, found by pixels, with an equal part for every class."""
        store = mnemos.open(":memory:", metric="euclidean")
        return Episodes(store, self.exemplars * self.now.classes, balanced=True, seed=self.seed)

    def room(self, episodes: Episodes) -> None:
        """Makes room for the exemplars of every class that was seen."""
        episodes.capacity = self.exemplars * self.now.classes * self.now.begun

    def recalled(self, episodes: Episodes, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        """What a fast store alone answers: log-probabilities of outputs."""
        every = torch.arange(self.now.contexts * self.now.classes)
        found = recall(episodes, inputs, len(every), NEIGHBOURS)
        outputs = torch.zeros(len(inputs), self.now.outputs).index_add(1, self.now.targets(every), found)
        return self.now.masked(outputs.log(), labels)


def classifier(course: Course, inputs: int) -> nn.Sequential:
    """Van de Ven's: two hidden layers of rectified units."""
    torch.manual_seed(course.seed)
    first, second = nn.Linear(inputs, course.width), nn.Linear(course.width, course.width)
    last = nn.Linear(course.width, course.scenario.outputs)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def autoencoder(course: Course, inputs: int) -> VariationalAutoencoder:
    """As wide as the classifier."""
    torch.manual_seed(course.seed + 1)
    return VariationalAutoencoder(inputs, (course.width, course.width))


def feedback(course: Course, inputs: int) -> FeedbackNetwork:
    """A classifier that makes its own inputs."""
    return FeedbackNetwork(autoencoder(course, inputs), course.scenario.outputs)


class Method(ABC):
    """Learns contexts in turn, and answers."""

    @abstractmethod
    def learn(self, number: int, context: Context, advance: Advance) -> None:
        """The next context, from 0."""

    @abstractmethod
    def answers(self) -> Mapping[str, Answer]:
        """Who answers: "store", "network" or "both", as far as there are such."""

    @abstractmethod
    def kept(self) -> int:
        """Bytes that are kept for what was learned before, beside the network."""


Terms = Callable[[Course, nn.Module, int], Sequence[Term]]  # of a network and a number of inputs
Network = Callable[[Course, int], nn.Module]


class WithTerms(Method):
    """A network that learns by gradient, held by terms of a `Consolidator`."""

    def __init__(self, course: Course, inputs: int, terms: Terms, network: Network = classifier) -> None:
        self.course, self.network = course, network(course, inputs)
        self.consolidator = Consolidator(self.network, terms(course, self.network, inputs), course.loss)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        self.consolidator.attach(self.optimizer)
        kept = [term for term in self.consolidator.terms if isinstance(term, Rehearsal)]
        self.fast = kept[0].episodes if kept else None

    def learn(self, number: int, context: Context, advance: Advance) -> None:
        course = self.course
        course.now = course.scenario.during(number)
        # What is replayed is judged by its own context, which its label tells; other terms know outputs.
        labels = context.train_labels
        told = labels if self.fast is not None else course.scenario.targets(labels)
        data = context.train_inputs, torch.stack([labels, told], 1)
        for step, (inputs, asked) in enumerate(minibatches(*data, ROWS, course.steps, course.generator)):
            loss = self.consolidator.loss(self.new(inputs, asked[:, 0]), inputs)
            descend(loss, self.optimizer)
            self.consolidator.observe(inputs, asked[:, 1])
            if step % 50 == 0:
                advance(step / course.steps, f"context {number + 1}, loss {loss.item():.3f}")
        if self.fast is not None:
            course.room(self.fast)
        parts = (part.split(1000) for part in (context.train_inputs, told))
        self.consolidator.end_context(list(zip(*parts, strict=True)))

    def new(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        """The loss of what is new; who makes its own inputs learns to make these, too."""
        loss = self.course.loss(self.network(inputs), labels)
        return loss + self.network.loss(inputs) if isinstance(self.network, FeedbackNetwork) else loss

    def answers(self) -> Mapping[str, Answer]:
        if self.fast is None:
            return {"network": self.by_network}
        return {"store": self.by_store, "network": self.by_network, "both": self.by_both}

    @torch.no_grad()
    def by_network(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        return self.course.now.masked(self.network(inputs), labels).log_softmax(1)

    def by_store(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        assert self.fast is not None
        return self.course.recalled(self.fast, inputs, labels)

    def by_both(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        return _together(self.by_store(inputs, labels), self.by_network(inputs, labels))

    def kept(self) -> int:
        return _bytes(self.consolidator.state_dict()) + _stored(self.fast)


class Exemplars(WithTerms):
    """iCaRL: logistic outputs while it learns, the nearest mean of exemplars when it answers."""

    def __init__(self, course: Course, inputs: int) -> None:
        def terms(course: Course, network: nn.Module, inputs: int) -> Sequence[Term]:
            assert isinstance(network, nn.Sequential)
            return [ICaRL(course.episodes(), network[:-1], count=course.exemplars)]

        super().__init__(course, inputs, terms)
        assert isinstance(self.network, nn.Sequential)
        assert self.fast is not None
        self.nearest = NearestMean(self.fast, self.network[:-1], course.scenario.outputs)

    def new(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        term = self.consolidator.terms[0]
        assert isinstance(term, ICaRL)
        return term.classification(self.network(inputs), labels)

    def by_both(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        return self.nearest(inputs)


class Solved(Method):
    """An analytic readout over random features, and a fast store."""

    def __init__(self, course: Course, inputs: int) -> None:
        self.course, self.fast = course, course.episodes()
        features = RandomFeatures(inputs, FEATURES, seed=course.seed)
        self.readout = AnalyticReadout(features, FEATURES, course.scenario.outputs, RIDGE)

    def learn(self, number: int, context: Context, advance: Advance) -> None:
        course = self.course
        course.now = course.scenario.during(number)
        course.room(self.fast)
        parts = list(zip(context.train_inputs.split(1000), context.train_labels.split(1000), strict=True))
        for place, (inputs, labels) in enumerate(parts):
            self.readout.observe(inputs, course.scenario.targets(labels))
            self.fast.write(inputs, labels)
            advance(place / len(parts), f"context {number + 1}")

    def answers(self) -> Mapping[str, Answer]:
        return {"store": self.by_store, "network": self.by_network, "both": self.by_both}

    def by_network(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        # Of squares, and no logits: a softmax of answers ten times as far apart makes chances of them.
        return self.course.now.masked(10 * self.readout(inputs), labels).log_softmax(1)

    def by_store(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        return self.course.recalled(self.fast, inputs, labels)

    def by_both(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        return _together(self.by_store(inputs, labels), self.by_network(inputs, labels))

    def kept(self) -> int:
        return self.readout.gram.nbytes + self.readout.cross.nbytes + _stored(self.fast)


class Generative(Method):
    """A small model of each class, which says how likely an input is."""

    def __init__(self, course: Course, inputs: int) -> None:
        torch.manual_seed(course.seed)
        small, classes = (course.width // 5 + 5,) * 2, course.scenario.contexts * course.scenario.classes
        models = [VariationalAutoencoder(inputs, small, 5) for _ in range(classes)]
        self.course, self.classifier = course, GenerativeClassifier(models, seed=course.seed)
        self.optimizer = torch.optim.Adam(self.classifier.parameters(), lr=RATE)

    def learn(self, number: int, context: Context, advance: Advance) -> None:
        course = self.course
        course.now = course.scenario.during(number)
        data = context.train_inputs, context.train_labels
        for step, (inputs, labels) in enumerate(minibatches(*data, ROWS, course.steps, course.generator)):
            loss = self.classifier.loss(inputs, labels)
            descend(loss, self.optimizer)
            if step % 50 == 0:
                advance(step / course.steps, f"context {number + 1}, loss {loss.item():.1f}")

    def answers(self) -> Mapping[str, Answer]:
        return {"network": self.by_network}

    def by_network(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        parts = [self.classifier(part) for part in inputs.split(200)]
        return self.course.now.masked(torch.cat(parts), labels)

    def kept(self) -> int:
        return 0


class Joint(Method):
    """All contexts at once: what could be learned if nothing had to be kept."""

    def __init__(self, course: Course, inputs: int) -> None:
        self.course, self.network = course, classifier(course, inputs)
        self.data: list[tuple[Tensor, Tensor]] = []

    def learn(self, number: int, context: Context, advance: Advance) -> None:
        course = self.course
        course.now = course.scenario.during(number)
        self.data.append((context.train_inputs, context.train_labels))
        if number < course.scenario.contexts - 1:
            return
        optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        inputs, labels = (torch.cat(part) for part in zip(*self.data, strict=True))
        steps = course.steps * course.scenario.contexts
        for step, (rows, asked) in enumerate(minibatches(inputs, labels, ROWS, steps, course.generator)):
            loss = course.loss(self.network(rows), asked)
            descend(loss, optimizer)
            if step % 50 == 0:
                advance(step / steps, f"all contexts, loss {loss.item():.3f}")

    def answers(self) -> Mapping[str, Answer]:
        return {"network": self.by_network}

    @torch.no_grad()
    def by_network(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        return self.network(inputs)

    def kept(self) -> int:
        return sum(inputs.nbytes + labels.nbytes for inputs, labels in self.data)


def _together(store: Float[Tensor, "rows outputs"], network: Float[Tensor, "rows outputs"]) -> Tensor:
    """The mean of two log-probabilities' chances, weighted."""
    return (STORE_SHARE * store.softmax(1) + (1 - STORE_SHARE) * network.softmax(1)).log()


def _stored(episodes: Episodes | None) -> int:
    """Bytes of the keys and values of experiences."""
    return 0 if episodes is None else sum(one.nbytes for one in episodes.store.gather(episodes.store.ids()))


def _bytes(state: Any) -> int:
    """Of all tensors in it."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(map(_bytes, state.values()))
    return 0
