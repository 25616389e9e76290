"""What is asked can be told from the inputs: each task is solved here by a few plain lines."""

import dataclasses
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mnemos.tasks.algorithms import Copy, DynamicNGrams, PrioritySort, RepeatCopy
from mnemos.tasks.recall import AssociativeRecall, KeyValueRecall
from mnemos.tasks.task import Task


def copied(inputs: Tensor) -> Tensor:
    return inputs[: int(inputs[:, -1].argmax()), :-1]


def copied_repeatedly(inputs: Tensor) -> Tensor:
    """For repeats of 1 to 3: -1.22, 0 and 1.22."""
    end = int(inputs[:, -2].argmax())
    repeats = round(2 + inputs[end, -1].item() * (2 / 3) ** 0.5)
    answers = inputs[:end, :-2].repeat(repeats, 1)
    marker = torch.zeros(len(answers) + 1, 1).index_fill(0, torch.tensor(len(answers)), 1)
    return torch.cat([torch.cat([answers, torch.zeros(1, answers.shape[1])]), marker], dim=1)


def associated(inputs: Tensor) -> Tensor:
    """For items of 2 vectors."""
    first, second = inputs[:, -1].nonzero().flatten().tolist()
    items = inputs[:first].unflatten(0, (-1, 3))[:, 1:, :-2]
    asked = inputs[first + 1 : second, :-2]
    [place] = (items == asked).flatten(1).all(1).nonzero().flatten().tolist()
    return items[place + 1]


def sorted_by_priority(inputs: Tensor) -> Tensor:
    """For 3 answers."""
    shown = inputs[: int(inputs[:, -1].argmax())].tolist()
    ordered = sorted(shown, key=lambda vector: -vector[-2])
    return torch.tensor([vector[:-2] for vector in ordered[:3]])


def looked_up(inputs: Tensor) -> Tensor:
    """For keys of 5 bits and 3 values."""
    values = {tuple(step[:5]): step[5:8] for step in inputs.tolist() if step[-1] == 0}
    answers = [values[tuple(step[:5])] for step in inputs.tolist() if step[-1] == 1]
    return torch.tensor(answers).argmax(1)


SOLVED: dict[str, tuple[Task, Callable[[Tensor], Tensor]]] = {
    "copy": (Copy(4, (1, 6)), copied),
    "repeat-copy": (RepeatCopy(3, (1, 4), (1, 3)), copied_repeatedly),
    "associative-recall": (AssociativeRecall(4, 2, (2, 5)), associated),
    "priority-sort": (PrioritySort(4, (3, 6), 3), sorted_by_priority),
    "key-value-recall": (KeyValueRecall(5, 3, (2, 9), 2), looked_up),
}
TASKS = [task for task, _ in SOLVED.values()] + [DynamicNGrams(3, 30)]


@pytest.mark.parametrize("name", SOLVED)
def test_the_answers_follow_from_the_inputs(name: str) -> None:
    task, solve = SOLVED[name]
    batch = task.batch(40, torch.Generator().manual_seed(0))
    for inputs, targets, scored, real in zip(*batch, strict=True):
        steps = int(real.sum())
        assert real[:steps].all()
        assert not inputs[steps:].any()
        answers = solve(inputs[:steps])
        assert torch.equal(scored.nonzero().flatten(), torch.arange(steps - len(answers), steps))
        assert torch.equal(targets[scored], answers)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_sizes_masks_and_chance(task: Task) -> None:
    inputs, targets, scored, real = batch = task.batch(50, torch.Generator().manual_seed(1))
    assert inputs.shape == (*real.shape, task.input_size)
    assert real[:, 0].all()
    assert real.any(0).all()  # padded to the longest and no further
    assert not (scored & ~real).any()
    assert scored.any(1).all()
    chance = 1 - 1 / task.output_size if isinstance(task, KeyValueRecall) else 0.5
    outputs = torch.randn(*real.shape, task.output_size, generator=torch.Generator().manual_seed(2))
    assert abs(task.error(outputs, batch) - chance) < 0.15
    right = torch.nn.functional.one_hot(targets, task.output_size) if targets.dim() == 2 else targets
    assert task.error(200.0 * right - 100, batch) == 0
    assert task.loss(200.0 * right - 100, batch) < 1e-6


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_the_same_generator_gives_the_same_sequences(task: Task) -> None:
    first, again, other = (task.batch(5, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    assert not torch.equal(first.inputs, other.inputs)
    assert pickle.loads(pickle.dumps(task)) == task


def test_every_length_of_the_range_comes() -> None:
    batch = Copy(2, (2, 5)).batch(200, torch.Generator().manual_seed(5))
    assert batch.scored.sum(1).unique().tolist() == [2, 3, 4, 5]


def test_the_number_of_repeats_is_scaled_and_keeps_its_scale_where_more_are_asked() -> None:
    task = RepeatCopy(repeats=(1, 10))
    numbers = torch.tensor([task.scaled(repeats) for repeats in range(1, 11)])
    torch.testing.assert_close(numbers.mean(), torch.tensor(0.0))
    torch.testing.assert_close(numbers.square().mean(), torch.tensor(1.0))
    longer = dataclasses.replace(task, repeats=(20, 20), scaled_over=(1, 10))
    assert longer.scaled(7) == task.scaled(7)
    assert RepeatCopy(repeats=(4, 4)).scaled(4) == 0


def test_the_best_predictor_of_bits_counts_what_followed_each_context() -> None:
    task = DynamicNGrams(context=2, length=60)
    batch = task.batch(3, torch.Generator().manual_seed(6))
    optimal = task.optimal(batch)
    for row in range(3):
        bits = [int(bit) for bit in batch.inputs[row, :, 0]] + [int(batch.targets[row, -1, 0])]
        counts: dict[tuple[int, ...], list[float]] = {}
        for step in range(1, 59):
            zeros, ones = counts.setdefault(tuple(bits[step - 1 : step + 1]), [0.5, 0.5])
            assert optimal[row, step].item() == pytest.approx(math.log(ones / zeros), abs=1e-6)
            counts[tuple(bits[step - 1 : step + 1])][bits[step + 1]] += 1


def test_no_constant_predictor_comes_near_the_best() -> None:
    task = DynamicNGrams()
    batch = task.batch(200, torch.Generator().manual_seed(7))
    best = task.loss(task.optimal(batch), batch).item()
    # The entropy of a Beta(1/2, 1/2) chance is 0.386 nats; learning 32 of them costs the rest.
    assert 0.45 < best < 0.55
    assert task.loss(torch.zeros_like(batch.targets), batch).item() == pytest.approx(math.log(2), abs=1e-5)


def test_chances_are_those_of_the_arcsine_law() -> None:
    task = DynamicNGrams(context=1, length=400)
    bits = task.batch(500, torch.Generator().manual_seed(8)).targets[..., 0]
    follows = bits[:, 1:].where(bits[:, :-1] == 1, torch.nan).nanmean(1)
    # A quarter of Beta(1/2, 1/2) lies below sin²(π/8).
    assert (follows < math.sin(math.pi / 8) ** 2).float().mean().item() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Copy(width=0), "width must be at least 1, not 0"),
        (lambda: Copy(lengths=(5, 3)), r"lengths must be \(least, most\), from 1 up, not \(5, 3\)"),
        (lambda: RepeatCopy(repeats=(0, 3)), "repeats must be"),
        (lambda: AssociativeRecall(items=(1, 3)), "items must be at least 2"),
        (lambda: AssociativeRecall(1, 2, (2, 5)), "items must be at most 2.bits.*, not 5 with 2 bits"),
        (lambda: DynamicNGrams(5, 5), "length must be above context, 5, not 5"),
        (lambda: PrioritySort(lengths=(3, 9)), "answers must be at most the 3 vectors, not 16"),
        (lambda: KeyValueRecall(2, pairs=(2, 5)), "pairs must be at most"),
        (lambda: KeyValueRecall(pairs=(2, 5), questions=3), "questions must be at most the 2 pairs"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Task], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
