"""What studies of continual learning compare: ways to learn context after context, each judged by its
answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import mnemos
from mnemos.consolidation import Consolidator, Episodes, Term
from mnemos.consolidation.complementary import recall
from mnemos.consolidation.rehearsal import Rehearsal
from mnemos.progress import Advance
from mnemos.tasks.contexts import Context, Scenario, minibatches

Answer = Callable[[Tensor, Tensor], Tensor]  # inputs and labels to outputs; of labels, only what is told
ROWS, RATE, NEIGHBOURS, STORE_SHARE = 128, 1e-3, 5, 0.3


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

    def network(self, inputs: int) -> nn.Sequential:
        """Van de Ven's: two hidden layers of rectified units."""
        torch.manual_seed(self.seed)
        first, second = nn.Linear(inputs, self.width), nn.Linear(self.width, self.width)
        last = nn.Linear(self.width, self.scenario.outputs)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)

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


class Method(ABC):
    """Learns contexts in turn, and answers."""

    name: str

    @abstractmethod
    def learn(self, number: int, context: Context, advance: Advance) -> None:
        """The next context, from 0."""

    @abstractmethod
    def answers(self) -> Mapping[str, Answer]:
        """Who answers: "network", "store" or "both", as far as there are such. The last is the method's."""

    def kept(self) -> int:
        """Bytes that are kept for what was learned before, beside the network."""
        return 0


Terms = Callable[[Course], Sequence[Term]]


class WithTerms(Method):
    """A network that learns by gradient, held by terms of a `Consolidator`."""

    def __init__(self, course: Course, inputs: int, terms: Terms) -> None:
        self.course, self.network = course, course.network(inputs)
        self.consolidator = Consolidator(self.network, terms(course), course.loss)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        self.consolidator.attach(self.optimizer)
        self.fast = [term.episodes for term in self.consolidator.terms if isinstance(term, Rehearsal)]

    def learn(self, number: int, context: Context, advance: Advance) -> None:
        course = self.course
        course.now = course.scenario.during(number)
        data = context.train_inputs, context.train_labels
        for step, (inputs, labels) in enumerate(minibatches(*data, ROWS, course.steps, course.generator)):
            loss = self.consolidator.loss(course.loss(self.network(inputs), labels), inputs)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.consolidator.observe(inputs, labels)
            if step % 50 == 0:
                advance(step / course.steps, f"context {number + 1}, loss {loss.item():.3f}")
        for episodes in self.fast:
            episodes.capacity = course.exemplars * course.now.classes * course.now.begun
        self.consolidator.end_context(list(zip(*(part.split(1000) for part in data), strict=True)))

    def answers(self) -> Mapping[str, Answer]:
        if not self.fast:
            return {"network": self._network}
        return {"store": self._store, "network": self._network, "both": self._both}

    @torch.no_grad()
    def _network(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        return self.course.now.masked(self.network(inputs), labels).log_softmax(1)

    def _store(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        now, every = self.course.now, torch.arange(self.course.now.contexts * self.course.now.classes)
        found = recall(self.fast[0], inputs, len(every), NEIGHBOURS)
        outputs = torch.zeros(len(inputs), now.outputs).index_add(1, now.targets(every), found)
        return now.masked(outputs.log(), labels)

    def _both(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        store, network = (one(inputs, labels).softmax(1) for one in (self._store, self._network))
        return (STORE_SHARE * store + (1 - STORE_SHARE) * network).log()

    def kept(self) -> int:
        columns = [
            one.nbytes for episodes in self.fast for one in episodes.store.gather(episodes.store.ids())
        ]
        return sum(columns) + _bytes(self.consolidator.state_dict())


class Joint(Method):
    """All contexts at once: what could be learned if nothing had to be kept."""

    def __init__(self, course: Course, inputs: int) -> None:
        self.course, self.network = course, course.network(inputs)
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
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                advance(step / steps, f"all contexts, loss {loss.item():.3f}")

    @torch.no_grad()
    def _answer(self, inputs: Tensor, labels: Int[Tensor, " rows"]) -> Tensor:
        return self.network(inputs)

    def answers(self) -> Mapping[str, Answer]:
        return {"network": self._answer}

    def kept(self) -> int:
        return sum(inputs.nbytes + labels.nbytes for inputs, labels in self.data)


def _bytes(state: Any) -> int:
    """Of all tensors in it."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(map(_bytes, state.values()))
    return 0
