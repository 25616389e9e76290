"""The parts of the study `dnc-graph` that do not need its minutes."""

import os

import pytest
import torch

from mnemos.progress import silent
from mnemos.studies import dnc_graph
from mnemos.studies.algorithms import Control
from mnemos.tasks.graphs import RandomGraphs

needs_data = pytest.mark.skipif(
    not os.environ.get("MNEMOS_DATA"), reason="MNEMOS_DATA names no folder with London's Underground"
)
TINY = dnc_graph.SHORT._replace(
    edges={"traversal": 2, "shortest_path": 1},
    steps={"traversal": 2, "shortest_path": 2},
    slots=6,
    width=4,
    read_heads=2,
    hidden_size=5,
    control_hidden_size=5,
)


class Answering(torch.nn.Module):
    """Gives the same answers, whatever it is asked."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.answers,)


@needs_data
def test_both_questions_are_taught_judged_and_drawn(monkeypatch) -> None:
    monkeypatch.setattr(dnc_graph, "SHORT", TINY)
    monkeypatch.setattr(dnc_graph, "TRIED", 20)
    measured = dnc_graph.STUDY.run(seed=0).measured
    assert set(measured["right_ways"]) == {
        f"{question}_{network}{place}"
        for question in dnc_graph.QUESTIONS
        for network in ("dnc", "lstm")
        for place in ("", "_in_london")
    }
    assert set(measured["right_ways"]["traversal_dnc"]) == {"1", "2", "3"}  # one edge more than was taught
    assert all(0 <= right < 0.5 for rights in measured["right_ways"].values() for right in rights.values())
    assert [" to " in edge for edge in measured["edges_told"]] == [True] * len(measured["read_weights"])
    assert len(measured["way"]) == 2
    assert len(dnc_graph.STUDY.figure(measured).axes) == 3


def test_ways_grow_longer_once_the_shorter_are_mastered(monkeypatch) -> None:
    monkeypatch.setattr(dnc_graph, "OVER", 2)
    form = TINY._replace(steps={"traversal": 9}, edges={"traversal": 3})
    lesson, asked = dnc_graph._lesson("traversal", form), []

    def noted(graphs, edges):
        asked.append(edges)
        return lesson(graphs, edges)

    def teach(mastered: float) -> list[int]:
        monkeypatch.setattr(dnc_graph, "MASTERED", mastered)
        network = Control(lesson(form.graphs, (1, 3)), 4)
        return dnc_graph._teach(network, noted, form, "traversal", 1e-3, 9, 0, silent)

    assert teach(mastered=1.1) == [2, 4]
    assert asked == [(1, 1)] * 2 + [(1, 2)] * 2 + [(1, 3)] * 5
    assert teach(mastered=0.0) == []


def test_a_network_that_masters_nothing_begins_anew(monkeypatch) -> None:
    monkeypatch.setattr(dnc_graph, "PATIENCE", 2)
    form = TINY._replace(steps={"traversal": 5})
    lesson, begun = dnc_graph._lesson("traversal", form), []

    def make() -> Control:
        begun.append(torch.initial_seed())
        return Control(lesson(form.graphs, (1, 2)), 4)

    for mastered, starts in ((0.0, [7, 1007, 2007]), (1.1, [7])):
        monkeypatch.setattr(dnc_graph, "MASTERED", mastered)
        monkeypatch.setattr(dnc_graph, "OVER", 1)
        begun.clear()
        _, lessons, count = dnc_graph._taught(make, lesson, form, "traversal", 1e-3, 7, silent)
        assert begun == starts
        assert count == len(starts)
        assert lessons == ([] if mastered == 0.0 else [1])


def test_a_way_is_right_if_every_edge_is() -> None:
    task = dnc_graph._lesson("traversal", TINY)(RandomGraphs((4, 5)), (2, 2))
    truth = task.batch(dnc_graph.TRIED, torch.Generator().manual_seed(1_000_000)).targets
    assert dnc_graph._right(Answering(truth), task, seed=0) == 1
    truth[: dnc_graph.TRIED // 2] = truth[: dnc_graph.TRIED // 2].roll(1, -1)
    assert dnc_graph._right(Answering(truth), task, seed=0) == 0.5
