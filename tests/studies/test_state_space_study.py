"""The parts of the study `state-space` that do not need its minutes."""

import torch
from torch.nn import functional

from mnemos.progress import silent
from mnemos.studies import state_space
from mnemos.tasks.selective import InductionHeads, SelectiveCopying

FORM = state_space.Form(
    width=8,
    items=3,
    apart=4,
    copying_steps=2,
    induction_steps=2,
    taught=12,
    factors=(1, 3),
    copying_tokens=64,
    induction_tokens=64,
    tried=5,
)


def test_sequences_grow_to_their_greatest_length():
    generator = torch.Generator().manual_seed(0)
    lesson = state_space.induction(FORM)
    assert {lesson(0.0, 0.0, generator)[0].lengths[1] for _ in range(20)} == {8}
    assert max(lesson(1.0, 0.0, generator)[0].lengths[1] for _ in range(60)) == 12


def test_more_is_copied_when_as_much_is_copied_well():
    generator = torch.Generator().manual_seed(0)
    lesson = state_space.copying(FORM)
    assert {lesson(1.0, 0.9, generator)[0].items for _ in range(20)} == {1}
    assert lesson(0.0, 1.0, generator)[0].items <= 2
    assert {lesson(0.0, 0.0, generator)[0].items for _ in range(20)} == {1, 2}
    assert {lesson(0.0, 1.0, generator)[0].items for _ in range(60)} == {1, 2, 3}
    task, batch = lesson(1.0, 0.0, generator)
    assert batch.inputs.shape[1] == task.length + task.items


def test_who_knows_is_right_at_every_place_and_who_guesses_is_not():
    def knows(tokens):
        items = tokens[tokens > 1].view(len(tokens), 3)
        answers = torch.cat([tokens.new_zeros(len(tokens), 12), items], dim=1)
        return functional.one_hot(answers, 16).float(), None

    task = SelectiveCopying(length=12, items=3)
    assert state_space.hits(knows, task, 10, 0) == [1, 1, 1]
    assert max(state_space.hits(lambda tokens: (torch.ones(*tokens.shape, 16), None), task, 10, 0)) == 0
    found = state_space.hits(
        lambda tokens: (torch.eye(16)[tokens], None), InductionHeads(lengths=(9, 9)), 10, 0
    )
    assert found == [0]


def test_the_fast_forms_are_their_loops():
    apart = state_space.forms_apart(seed=3, time=200)
    assert max(apart.values()) < 1e-4


def test_all_is_measured_and_drawn():
    measured = state_space.measure(0, False, silent, FORM)
    assert set(state_space.STUDY.thresholds) <= set(measured)
    assert 0.8 < measured["parameters_with_s4d"] / measured["parameters_with_selective"] < 1.5
    assert list(measured["induced_by_length"]) == ["12", "36"]
    assert len(measured["copied_by_place"]["s4d"]) == 3
    assert measured == state_space.measure(0, False, silent, FORM)
    figure = state_space.STUDY.figure(measured)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Copied among noise",
        "What followed a mark",
    ]
