"""Contexts share nothing, a label says its context, and a scenario says who may answer."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.nn import functional

from mnemos.tasks.contexts import (
    ClassIncremental,
    DomainIncremental,
    TaskIncremental,
    minibatches,
    permuted,
    split,
)
from mnemos.tasks.mnist import Digits

LABELS = torch.tensor([0, 5, 3, 1, 4, 2, 5, 0])
SCENARIOS = [TaskIncremental, DomainIncremental, ClassIncremental]


def numbered(count: int, first: int) -> torch.Tensor:
    """Images of 2 by 3 pixels, no two of which are the same."""
    return (first + torch.arange(count * 6)).to(torch.uint8).view(count, 2, 3)


@pytest.fixture
def digits() -> Digits:
    """Six classes, twelve images to learn from and six to be judged by."""
    train, test = torch.arange(12) * 5 % 6, torch.arange(6).flip(0)
    return Digits(numbered(12, 0), train, numbered(6, 72), test)


def outputs(scenario, labels=LABELS, seed=0) -> torch.Tensor:
    drawn = torch.randn(len(labels), scenario.outputs, generator=torch.Generator().manual_seed(seed))
    return drawn.requires_grad_()


def test_every_example_is_in_the_one_context_of_its_label(digits):
    contexts = split(digits)
    assert [context.classes for context in contexts] == [(0, 1), (2, 3), (4, 5)]
    for number, context in enumerate(contexts):
        assert context.train_inputs.shape == (4, 6)
        assert context.test_inputs.shape == (2, 6)
        for labels in (context.train_labels, context.test_labels):
            assert (labels // 2).unique().tolist() == [number]
        for inputs, labels, images, digit in (
            (context.train_inputs, context.train_labels, digits.train_images, digits.train_labels),
            (context.test_inputs, context.test_labels, digits.test_images, digits.test_labels),
        ):
            assert torch.equal(inputs, images.flatten(1)[digit // 2 == number] / 255)
            assert torch.equal(labels, digit[digit // 2 == number])


def test_the_label_of_a_digit_is_its_place_in_the_order(digits):
    order = [4, 0, 5, 2, 1, 3]
    contexts = split(digits, 3, order)
    assert [context.classes for context in contexts] == [(4, 0, 5), (2, 1, 3)]
    for number, context in enumerate(contexts):
        assert context.train_labels.unique().tolist() == [3 * number, 3 * number + 1, 3 * number + 2]
        for image, label in zip(context.train_inputs, context.train_labels.tolist(), strict=True):
            there = (digits.train_images.flatten(1) / 255 == image).all(1)
            assert digits.train_labels[there].tolist() == [order[label]]


def test_all_classes_in_one_context_are_all_examples(digits):
    (whole,) = split(digits, 6)
    assert torch.equal(whole.train_inputs, digits.train_images.flatten(1) / 255)
    assert torch.equal(whole.test_labels, digits.test_labels)


def test_contexts_that_cannot_be_are_refused(digits):
    for number in (0, 4, 12):
        with pytest.raises(ValueError, match=f"divide 6 classes, not be {number}"):
            split(digits, number)
    for order in ([0, 1, 2], [0, 1, 2, 3, 4, 4]):
        with pytest.raises(ValueError, match="each class from 0 to 5 once"):
            split(digits, order=order)
    with pytest.raises(ValueError, match="contexts must be at least 1, not 0"):
        permuted(digits, 0, seed=0)


def test_pixels_are_moved_alike_within_a_context_and_otherwise_in_the_next(digits):
    contexts = list(permuted(digits, 3, seed=1))
    orders = []
    for number, context in enumerate(contexts):
        assert torch.equal(context.train_labels, digits.train_labels + 6 * number)
        assert torch.equal(context.test_labels // 6, torch.full((6,), number))
        assert context.classes == (0, 1, 2, 3, 4, 5)
        order = (context.train_inputs[0] * 255).round().long()  # the first image has 0 to 5 as its pixels
        assert order.sort().values.tolist() == [0, 1, 2, 3, 4, 5]
        assert torch.equal(context.train_inputs, digits.train_images.flatten(1)[:, order] / 255)
        assert torch.equal(context.test_inputs, digits.test_images.flatten(1)[:, order] / 255)
        orders.append(tuple(order.tolist()))
    assert len(set(orders)) == 3
    (first,) = permuted(digits, 1, seed=1)
    (other,) = permuted(digits, 1, seed=2)
    assert torch.equal(first.train_inputs, contexts[0].train_inputs)
    assert not torch.equal(other.train_inputs, first.train_inputs)


def test_a_replayed_example_is_judged_by_its_own_context():
    scenario = TaskIncremental(3, 2).during(2)
    values, expected = outputs(scenario), []
    for row, label in zip(values, LABELS.tolist(), strict=True):
        head = row.view(3, 2)[label // 2]  # naive: the outputs of one context
        expected.append(functional.cross_entropy(head, torch.tensor(label % 2)))
    torch.testing.assert_close(scenario.loss(values, LABELS), torch.stack(expected).mean())


def test_without_a_context_the_class_within_it_is_asked_for():
    scenario = DomainIncremental(3, 2)
    values = outputs(scenario)
    assert values.shape[1] == 2
    torch.testing.assert_close(
        scenario.loss(values, LABELS), functional.cross_entropy(values, LABELS % 2), rtol=0, atol=0
    )
    assert torch.equal(scenario.right(values, LABELS), values.argmax(1) == LABELS % 2)


def test_classes_not_yet_seen_do_not_compete():
    scenario, early = ClassIncremental(3, 2), LABELS[LABELS < 4]
    values = outputs(scenario, early)
    torch.testing.assert_close(
        scenario.during(1).loss(values, early), functional.cross_entropy(values[:, :4], early)
    )
    assert torch.equal(scenario.during(1).right(values, early), values[:, :4].argmax(1) == early)
    whole = functional.cross_entropy(values, early)
    torch.testing.assert_close(scenario.during(2).loss(values, early), whole)
    torch.testing.assert_close(scenario.loss(values, early), whole)


@pytest.mark.parametrize(
    "scenario", [kind(3, 2).during(1) for kind in SCENARIOS], ids=lambda s: type(s).__name__
)
def test_who_may_not_answer_learns_nothing(scenario):
    labels = LABELS[LABELS < 4]
    values = outputs(scenario, labels)
    scenario.loss(values, labels).backward()
    competing = scenario.competing(labels)
    assert torch.equal(values.grad != 0, competing)
    assert competing[torch.arange(len(labels)), scenario.targets(labels)].all()
    told = functional.one_hot(scenario.targets(labels), scenario.outputs) * 20.0
    assert scenario.right(told, labels).all()
    assert scenario.loss(told, labels) < 1e-6
    assert not scenario.right(-told, labels).any()


def test_more_who_may_answer_make_it_harder():
    """The outputs of the task-incremental scenario are among those of the class-incremental one."""
    task, one = TaskIncremental(3, 2), ClassIncremental(3, 2)
    labels = torch.arange(300) % 4
    values = outputs(one, labels)
    losses = [scenario.loss(values, labels).item() for scenario in (task, one.during(1), one)]
    assert losses == sorted(losses)
    right = [scenario.right(values, labels) for scenario in (task, one.during(1), one)]
    assert not (right[1] & ~right[0]).any()
    assert not (right[2] & ~right[1]).any()


def test_one_context_is_the_same_in_every_scenario():
    labels = LABELS[LABELS < 2]
    values = outputs(TaskIncremental(1, 2), labels)
    losses = {kind(1, 2).loss(values, labels).item() for kind in SCENARIOS}
    assert len(losses) == 1


def test_what_is_not_yet_there_is_not_learned_and_not_known():
    for kind in SCENARIOS:
        scenario = kind(3, 2).during(1)
        with pytest.raises(ValueError, match="from 0 to 3, of 2 contexts that have begun, not from 0 to 5"):
            scenario.loss(outputs(scenario), LABELS)
    scenario = ClassIncremental(3, 2).during(1)
    told = functional.one_hot(LABELS, 6) * 20.0
    assert torch.equal(scenario.right(told, LABELS), LABELS < 4)


def test_scenarios_that_cannot_be_are_refused():
    for sizes in ((0, 2), (3, 0)):
        with pytest.raises(ValueError, match="must be at least 1, not 0"):
            ClassIncremental(*sizes)
    for context in (-1, 3):
        with pytest.raises(ValueError, match=f"seen must be from 1 to 3 contexts, not {context + 1}"):
            ClassIncremental(3, 2).during(context)
    with pytest.raises(ValueError, match="outputs must be 6 for each example, not 2"):
        ClassIncremental(3, 2).loss(torch.zeros(8, 2), LABELS)


def test_minibatches_are_orders_of_all_examples():
    inputs = torch.arange(10)
    drawn = list(minibatches(inputs, -inputs, 3, 8, torch.Generator().manual_seed(0)))
    assert len(drawn) == 8
    assert all(torch.equal(batch, -target) for batch, target in drawn)
    orders = [torch.cat([batch for batch, _ in drawn[start : start + 3]]) for start in (0, 3, 6)]
    # Nine of ten: the tenth fills no minibatch; and the last order is left when the steps are done.
    assert [len(order.unique()) for order in orders] == [9, 9, 6]
    assert not torch.equal(orders[0], orders[1])
    again = list(minibatches(inputs, -inputs, 3, 8, torch.Generator().manual_seed(0)))
    assert all(torch.equal(one, other) for (one, _), (other, _) in zip(drawn, again, strict=True))
    assert list(minibatches(inputs, inputs, 3, 0, torch.Generator())) == []


def test_every_example_comes_as_often_as_any_other():
    inputs = torch.arange(10)
    drawn = minibatches(inputs, inputs, 3, 3000, torch.Generator().manual_seed(1))
    counts = torch.cat([batch for batch, _ in drawn]).bincount()
    assert counts.min() > 850  # 900 of 1,000 orders, with a deviation of 9.5
    assert counts.max() < 950


def test_minibatches_that_cannot_be_are_refused():
    inputs, generator = torch.zeros(4, 2), torch.Generator()
    for rows in (0, 5):
        with pytest.raises(ValueError, match=f"rows must be from 1 to the 4 examples, not {rows}"):
            minibatches(inputs, inputs, rows, 1, generator)
    with pytest.raises(ValueError, match="steps must not be negative"):
        minibatches(inputs, inputs, 1, -1, generator)
    # By the shapes in the signature where they are checked, as here.
    with pytest.raises((ValueError, TypeCheckError), match="targets"):
        minibatches(inputs, inputs[:3], 1, 1, generator)
