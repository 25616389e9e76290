"""Tasks over tokens: the answers follow from what is shown, and where things stand is as promised."""

from collections import Counter

import pytest
import torch

from mnemos.tasks.multi_query_recall import MultiQueryRecall
from mnemos.tasks.segmented_recall import FILLER, SegmentedRecall
from mnemos.tasks.selective import InductionHeads, SelectiveCopying

TASKS = [
    MultiQueryRecall(32, 24, 5),
    SelectiveCopying(9, 20, 6),
    InductionHeads(7, (5, 30)),
    SegmentedRecall(4, 6, 2, keys=12, values=5),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_a_batch_is_its_tokens_one_by_one(task):
    tokens, batch = task.tokens(4, generator()), task.batch(4, generator())
    assert tokens.inputs.dtype == torch.int64
    assert torch.equal(batch.inputs.argmax(2), tokens.inputs)
    assert batch.inputs.sum(2).eq(1).all()
    assert all(torch.equal(x, y) for x, y in zip(batch[1:], tokens[1:], strict=True))
    known = 20 * torch.nn.functional.one_hot(tokens.targets, task.output_size).float()
    assert task.error(known, tokens) == task.error(known, batch) == 0


def test_every_key_is_asked_for_once_after_the_pairs():
    task = TASKS[0]
    inputs, targets, scored, _ = task.tokens(200, generator())
    keys, values = inputs[:, :10:2], inputs[:, 1:10:2]
    assert (keys < 16).all()
    assert (values >= 16).all()
    assert scored.sum(1).eq(5).all()
    assert not scored[:, :10].any()
    for row in range(200):
        bound = dict(zip(keys[row].tolist(), values[row].tolist(), strict=True))
        assert len(bound) == len(set(bound.values())) == 5
        asked = inputs[row][scored[row]].tolist()
        assert sorted(asked) == sorted(bound)
        assert targets[row][scored[row]].tolist() == [bound[key] for key in asked]
        assert not set(inputs[row, 10:][~scored[row, 10:]].tolist()) & set(bound)
    between = Counter(inputs[:, 10:][~scored[:, 10:]].tolist())
    assert set(between) == set(range(32))  # every other token, keys of other sequences too


def test_questions_come_early_by_a_power_law_and_at_even_distances():
    _, _, scored, _ = MultiQueryRecall(64, 84, 1, power=0.01).tokens(4000, generator())
    counts = scored.sum(0)[2:].double()
    assert not counts[1::2].any()
    expected = torch.arange(1, 42).double() ** -0.99
    assert (counts[::2] / 4000 - expected / expected.sum()).abs().max() < 0.03
    _, _, uniform, _ = MultiQueryRecall(64, 84, 1, power=1.0).tokens(4000, generator())
    assert (uniform.sum(0)[2::2] / 4000 - 1 / 41).abs().max() < 0.02


def test_what_is_not_noise_is_copied_in_order():
    inputs, targets, scored, _ = TASKS[1].tokens(50, generator())
    assert inputs.shape == (50, 26)
    shown = inputs[:, :20]
    assert torch.equal(shown[shown > 1].view(50, 6), targets[:, 20:])
    assert inputs[:, 20:].eq(1).all()
    assert torch.equal(scored, torch.arange(26).expand(50, -1) >= 20)
    assert (shown > 1).any(0).all()  # an item can lie anywhere


def test_the_token_behind_the_mark_is_asked_for_at_the_end():
    lengths, places = set(), Counter()
    draws = generator()
    for _ in range(60):
        inputs, targets, scored, _ = TASKS[2].tokens(20, draws)
        lengths.add(inputs.shape[1])
        marks = inputs.eq(0)
        assert marks.sum(1).eq(2).all()
        assert marks[:, -1].all()
        first = marks.byte().argmax(1, keepdim=True)
        assert torch.equal(targets[scored], inputs.gather(1, first + 1).flatten())
        assert torch.equal(scored.nonzero()[:, 1], torch.full((20,), inputs.shape[1] - 1))
        if inputs.shape[1] == 5:
            places.update(first.flatten().tolist())
    assert min(lengths) >= 5
    assert max(lengths) <= 30
    assert set(places) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: MultiQueryRecall(length=30), "length must be even and at least 4 x pairs, not 30"),
        (lambda: MultiQueryRecall(vocabulary=8, pairs=5), "pairs must be 1 to half of an even vocabulary"),
        (lambda: MultiQueryRecall(power=0.0), "power must be above 0"),
        (lambda: SelectiveCopying(vocabulary=3), "vocabulary must be at least 4"),
        (lambda: SelectiveCopying(length=3, items=4), "items must be at most the length of 3, not 4"),
        (lambda: InductionHeads(lengths=(2, 8)), "lengths must be at least 3"),
        (lambda: InductionHeads(vocabulary=2), "vocabulary must be at least 3"),
    ],
)
def test_sizes_are_checked(make, error):
    with pytest.raises(ValueError, match=error):
        make()


@pytest.mark.parametrize(("pairs", "asked"), [(6, 4), (2, 2)])
def test_pairs_come_segment_by_segment_then_nothing_then_questions(pairs, asked):
    task = SegmentedRecall(4, pairs, gap=2, keys=12, values=5)
    inputs, targets, scored, _ = task.tokens(100, generator())
    told = 2 * pairs
    assert inputs.shape[1] == told + 8 + 4
    keys, values = inputs[:, :told:2], inputs[:, 1:told:2]
    assert ((keys >= FILLER) & (keys < FILLER + 12)).all()
    assert (values >= FILLER + 12).all()
    assert (inputs[:, told : told + 8] < FILLER).all()
    assert not scored[:, : told + 8].any()
    assert scored.sum(1).eq(asked).all()
    for row in range(100):
        bound = dict(zip(keys[row].tolist(), values[row].tolist(), strict=True))
        assert len(bound) == pairs
        questions = inputs[row][scored[row]].tolist()
        assert len(set(questions)) == asked
        assert targets[row][scored[row]].tolist() == [bound[key] for key in questions]
    assert (inputs[:, told + 8 :][~scored[:, told + 8 :]] < FILLER).all()


@pytest.mark.parametrize(
    "wrong", [{"segment": 3}, {"pairs": 3}, {"pairs": 0}, {"pairs": 66}, {"gap": -1}, {"values": 1}]
)
def test_what_does_not_fit_segments_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SegmentedRecall(**wrong)


def test_segments_that_mean_nothing_lie_anywhere_where_they_are_scattered():
    task = SegmentedRecall(4, 4, gap=2, keys=12, values=5, scattered=True)
    inputs, targets, scored, _ = task.tokens(100, generator())
    segments = inputs[:, :-4].unflatten(1, (4, 4))
    nothing = (segments < FILLER).all(2)
    assert nothing.sum(1).eq(2).all()
    assert nothing.any(0).all()
    assert (segments >= FILLER).all(2).eq(~nothing).all()
    for row in range(100):
        told = segments[row][~nothing[row]].flatten()
        bound = dict(zip(told[::2].tolist(), told[1::2].tolist(), strict=True))
        assert targets[row][scored[row]].tolist() == [bound[x] for x in inputs[row][scored[row]].tolist()]
