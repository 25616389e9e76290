"""Graphs, and questions about them: every answer follows from what the sequence itself tells."""

import itertools
import os
import random
from dataclasses import replace

import pytest
import torch

from mnemos.tasks.graph_questions import ShortestPath, Traversal
from mnemos.tasks.graphs import Edge, Graph, RandomGraphs, UndergroundGraphs, underground

needs_data = pytest.mark.skipif(
    not os.environ.get("MNEMOS_DATA"), reason="MNEMOS_DATA names no folder with London's Underground"
)
SQUARE = Graph(
    tuple(Edge(*one) for one in [(0, 1, 5), (1, 3, 6), (0, 2, 7), (2, 3, 5), (3, 0, 1), (1, 4, 2)])
)


def numbers(task, vectors: torch.Tensor) -> list[tuple[int | None, ...]]:
    """What a person would read: three numbers for every step, None where there is a gap."""
    digits = vectors.unflatten(-1, (3, task.digits, task.base))
    places = task.base ** torch.arange(task.digits)
    read = (digits.argmax(-1) * places).sum(-1)
    gaps = digits.sum((-1, -2)) == 0
    return [
        tuple(None if gap else number for number, gap in zip(*pair, strict=True))
        for pair in zip(read.tolist(), gaps.tolist(), strict=True)
    ]


def sequences(task, rows: int = 20, seed: int = 0):
    """(Edges told, question, answers) of every row."""
    batch = task.batch(rows, torch.Generator().manual_seed(seed))
    for row in range(rows):
        real = batch.real[row]
        inputs = batch.inputs[row, real]
        asked, due = inputs[:, -2] > 0, inputs[:, -1] > 0
        assert torch.equal(due, batch.scored[row, real])
        read = numbers(task, inputs[:, :-2])
        told = [triple for triple, a, d in zip(read, asked, due, strict=True) if not (a or d)]
        question = [triple for triple, a in zip(read, asked, strict=True) if a]
        yield told, question, numbers(task, batch.targets[row, real][due])


@pytest.mark.parametrize(
    "task", [Traversal(RandomGraphs(), (2, 3)), ShortestPath(RandomGraphs(), planning=2)]
)
def test_an_asked_question_says_which_edges_its_steps_are(task) -> None:
    asked = task.ask(random.Random(3))
    written = numbers(task, asked.example.inputs[:, :-2])
    answers = numbers(task, asked.example.targets[asked.example.scored])
    by_edge = dict(zip(asked.told, written, strict=False))  # the rest is the question, and gaps
    assert len(by_edge) == len(asked.told)
    assert [by_edge[edge] for edge in asked.answers] == answers
    assert all(one.destination == next.source for one, next in itertools.pairwise(asked.answers))
    assert torch.equal(task.ask(random.Random(3)).example.inputs, asked.example.inputs)


def test_a_traversal_can_be_followed_by_what_was_told() -> None:
    task = Traversal(RandomGraphs(places=(3, 7), degree=(1, 2)), steps=(1, 5), digits=2, base=5)
    for told, question, answers in sequences(task):
        place, followed = question[0][0], []
        for _, _, label in question:
            [edge] = [edge for edge in told if edge[0] == place and edge[2] == label]
            followed.append(edge)
            place = edge[1]
        assert followed == answers
        assert all(triple[1] is None for triple in question)
        assert len(answers) <= 5


def test_a_shortest_path_is_a_way_and_there_is_no_shorter_one() -> None:
    task = ShortestPath(RandomGraphs(places=(4, 7), degree=(2, 2)), steps=(2, 3), planning=3)
    for told, question, answers in sequences(task):
        assert len(question) == 1 + 3
        (start, end, _), *gaps = question
        assert gaps == [(None, None, None)] * 3
        assert (answers[0][0], answers[-1][1]) == (start, end)
        assert all(edge in told for edge in answers)
        assert all(one[1] == other[0] for one, other in itertools.pairwise(answers))
        [only] = Graph(tuple(Edge(*edge) for edge in told)).shortest(start, end)
        assert [tuple(edge) for edge in only] == answers


def test_all_shortest_ways_are_found() -> None:
    assert SQUARE.shortest(0, 3) == [
        [Edge(0, 1, 5), Edge(1, 3, 6)],
        [Edge(0, 2, 7), Edge(2, 3, 5)],
    ]
    assert SQUARE.shortest(4, 0) == []
    assert SQUARE.shortest(2, 2) == [[]]


def test_places_are_named_anew_in_every_sequence() -> None:
    class Same(RandomGraphs):
        def draw(self, chance: random.Random) -> Graph:
            return SQUARE

    task = ShortestPath(Same(), steps=(1, 1))
    told = [frozenset(edges) for edges, _, _ in sequences(task, rows=6)]
    assert len(set(told)) == 6


def test_a_seed_is_a_batch() -> None:
    task = Traversal(RandomGraphs())
    one, two = (task.batch(4, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))


def test_errors_count_edges_and_ways() -> None:
    task = Traversal(RandomGraphs(), steps=(2, 2))
    batch = task.batch(4, torch.Generator().manual_seed(0))
    assert task.error(batch.targets, batch) == task.wrong_ways(batch.targets, batch) == 0
    spoiled = batch.targets.clone()
    row, step = batch.scored.nonzero()[0]
    spoiled[row, step] = spoiled[row, step].flip(0)
    if task.error(spoiled, batch) == 0:  # a palindrome
        spoiled[row, step] = spoiled[row, step].roll(1)
    assert task.error(spoiled, batch) == pytest.approx(1 / 8)
    assert task.wrong_ways(spoiled, batch) == pytest.approx(1 / 4)
    assert task.loss(20 * batch.targets, batch) < 1e-3


@needs_data
def test_the_underground_is_whole() -> None:
    whole, names = underground()
    assert len(names) == 302
    assert {edge.source for edge in whole.edges} == set(names)
    stations = {name: station for station, name in names.items()}
    way = whole.shortest(stations["Oxford Circus"], stations["Bank"])[0]
    assert [names[edge.destination] for edge in way] == ["Green Park", "Westminster", "Waterloo", "Bank"]
    for ways in whole.ways.values():
        assert len({edge.label for edge in ways}) == len(ways)


@needs_data
def test_parts_of_the_underground_are_connected() -> None:
    whole, _ = underground()
    parts = UndergroundGraphs(whole, places=(5, 8))
    for seed in range(20):
        part = parts.draw(random.Random(seed))
        places = sorted(part.ways)
        assert 5 <= len(places) <= 8
        assert all(part.shortest(places[0], place) for place in places)
    task = Traversal(parts, digits=2)
    for told, question, answers in sequences(task, rows=5):
        assert len(question) == len(answers) <= len(told) * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomGraphs(degree=(2, 4)), "degree must be below places"),
        (lambda: RandomGraphs(labels=2), "at most labels"),
        (lambda: UndergroundGraphs(SQUARE, places=(1, 3)), "places must be at least 2"),
        (lambda: Traversal(RandomGraphs(), steps=(3, 2)), "steps must be"),
        (lambda: ShortestPath(RandomGraphs(), planning=0), "planning must be at least 1"),
    ],
)
def test_sizes_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_too_few_numbers_are_refused() -> None:
    task = replace(Traversal(RandomGraphs(places=(6, 6))), base=4)
    with pytest.raises(ValueError, match="digits must suffice for 6 numbers, not 1 of base 4"):
        task.batch(1, torch.Generator().manual_seed(0))
