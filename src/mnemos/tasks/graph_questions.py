"""Graphs told edge by edge, and then a way to be followed or to be found: the tasks of the DNC.

Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory". A step is a triple
(source, destination, label of the edge), each of them a number written in one-hot digits, and two flags: the
first is 1 while the question is asked, the second while answers are due. Numbers are drawn afresh for every
sequence, so that nothing but the sequence itself tells which place has which number.
"""

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mnemos.tasks.graphs import Edge, Graph, Graphs, RandomGraphs, UndergroundGraphs, underground
from mnemos.tasks.sequences import Example, Range, answered, check_ranges, padded
from mnemos.tasks.task import Batch, Task

Triple = tuple[int | None, int | None, int | None]  # an edge with gaps


class Asked(NamedTuple):
    """One question about one graph."""

    told: Sequence[Edge]  # all edges, in the order they are told in, one a step
    answers: Sequence[Edge]  # the way, one edge for each of the last steps
    example: Example


class GraphTask(Task):
    """What both questions share: how a graph is told, and how answers are judged."""

    graphs: Graphs
    digits: int
    base: int

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def input_size(self) -> int:
        return 3 * self.digits * self.base + 2

    @property
    def output_size(self) -> int:
        return 3 * self.digits * self.base

    def batch(self, rows: int, generator: torch.Generator) -> Batch:
        chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
        return padded([self.ask(chance).example for _ in range(rows)])

    @abstractmethod
    def question(self, graph: Graph, chance: random.Random) -> tuple[list[Triple], list[Edge]] | None:
        """What is asked, as triples with gaps, and the edges to answer; None if the graph does not fit."""

    def loss(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy in nats a digit."""
        logits, digits = self._digits(outputs[batch.scored]), self._digits(batch.targets[batch.scored])
        return functional.cross_entropy(logits.flatten(0, 1), digits.argmax(-1).flatten())

    def error(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> float:
        """The share of edges that are not answered in every digit."""
        return 1 - self._right(outputs, batch)[batch.scored].double().mean().item()

    def wrong_ways(self, outputs: Float[Tensor, "batch time output"], batch: Batch) -> float:
        """The share of sequences in which any edge is wrong, as the paper counts."""
        return 1 - (self._right(outputs, batch) | ~batch.scored).all(1).double().mean().item()

    def _right(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Which edges are answered in every digit, (batch, time)."""
        return (self._digits(outputs).argmax(-1) == self._digits(batch.targets).argmax(-1)).all(-1)

    def _digits(self, numbers: Tensor) -> Tensor:
        return numbers.unflatten(-1, (3 * self.digits, self.base))

    def ask(self, chance: random.Random) -> Asked:
        """One graph and a question about it; the same chance gives the same."""
        while True:
            graph = self.graphs.draw(chance)
            asked = self.question(graph, chance)
            if asked is not None:
                break
        question, answers = asked
        places = self._named(sorted({place for edge in graph.edges for place in edge[:2]}), chance)
        labels = self._named(sorted({edge.label for edge in graph.edges}), chance)
        told = chance.sample(graph.edges, len(graph.edges))
        gaps: list[Triple] = [(None, None, None)] * len(answers)

        def written(triples: Sequence[Triple]) -> Tensor:
            return self._written(
                [(places.get(one), places.get(other), labels.get(label)) for one, other, label in triples]
            )

        flags = [[0, 0]] * len(told) + [[1, 0]] * len(question) + [[0, 1]] * len(answers)
        inputs = torch.cat([written([*told, *question, *gaps]), torch.tensor(flags)], dim=1)
        return Asked(told, answers, answered(inputs, written(answers)))

    def _named(self, things: Sequence[int], chance: random.Random) -> dict[int | None, int]:
        """A number of its own for each thing."""
        if len(things) > self.base**self.digits:
            raise ValueError(
                f"digits must suffice for {len(things)} numbers, not {self.digits} of base {self.base}"
            )
        numbers = chance.sample(range(self.base**self.digits), len(things))
        return dict(zip(things, numbers, strict=True))

    def _written(self, triples: Sequence[Triple]) -> Tensor:
        """Numbers in one-hot digits, (triples, 3 * digits * base); all zeros where there is a gap."""
        numbers = torch.tensor([[-1 if number is None else number for number in one] for one in triples])
        digits = numbers.unsqueeze(-1) // self.base ** torch.arange(self.digits) % self.base
        written = functional.one_hot(digits, self.base) * (numbers >= 0).unsqueeze(-1).unsqueeze(-1)
        return written.float().flatten(1)


@final
@dataclass(frozen=True)
class Traversal(GraphTask):
    """From a place along edges that are named by their labels: every edge of the way is to be answered.

    Args:
        graphs: where they come from.
        steps: edges of a way.
        digits, base: of numbers; the paper has three decimal ones.
    """

    graphs: Graphs
    steps: Range = (1, 4)
    digits: int = 1
    base: int = 10

    def question(self, graph: Graph, chance: random.Random) -> tuple[list[Triple], list[Edge]] | None:
        way = [chance.choice(graph.edges)]
        for _ in range(chance.randint(*self.steps) - 1):
            way.append(chance.choice(graph.ways[way[-1].destination]))
        first, *rest = way
        asked: list[Triple] = [(first.source, None, first.label)]
        return [*asked, *((None, None, edge.label) for edge in rest)], way


@final
@dataclass(frozen=True)
class ShortestPath(GraphTask):
    """From one place to another by the fewest edges: every edge of the way is to be answered.

    Only pairs with a single shortest way are asked about, so that there is one right answer; the paper counts
    any of several. Between question and answers there are steps to plan in.

    Args:
        graphs: where they come from.
        steps: edges of a way.
        planning: steps between question and answers; the paper has ten.
        digits, base: of numbers.
    """

    graphs: Graphs
    steps: Range = (1, 3)
    planning: int = 10
    digits: int = 1
    base: int = 10

    def question(self, graph: Graph, chance: random.Random) -> tuple[list[Triple], list[Edge]] | None:
        places = sorted(graph.ways)
        fitting = []
        for start in places:
            for end in places:
                ways = graph.shortest(start, end)
                if start != end and len(ways) == 1 and self.steps[0] <= len(ways[0]) <= self.steps[1]:
                    fitting.append((start, end, ways[0]))
        if not fitting:
            return None
        start, end, way = chance.choice(fitting)
        gap: Triple = (None, None, None)
        return [(start, end, None), *[gap] * self.planning], way


def graph_traversal(
    map: str = "random", places: Range = (4, 6), steps: Range = (1, 4), digits: int = 2, base: int = 10
) -> Traversal:
    """`Traversal` of random graphs, or of parts of the Underground where `map` is "underground"."""
    return Traversal(_graphs(map, places), steps, digits, base)


def shortest_path(
    map: str = "random",
    places: Range = (4, 6),
    steps: Range = (1, 3),
    planning: int = 10,
    digits: int = 2,
    base: int = 10,
) -> ShortestPath:
    """`ShortestPath` in random graphs, or in parts of the Underground where `map` is "underground"."""
    return ShortestPath(_graphs(map, places), steps, planning, digits, base)


def _graphs(map: str, places: Range) -> Graphs:
    match map:
        case "random":
            return RandomGraphs(places)
        case "underground":
            return UndergroundGraphs(underground()[0], places)
    raise ValueError(f"map must be 'random' or 'underground', not {map!r}")
