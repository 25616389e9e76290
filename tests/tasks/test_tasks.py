"""What holds for every task."""

import os

import pytest
import torch

from mnemos.tasks import TASKS, named, sizes_of

NEEDS_DATA = {"babi", "omniglot"}


@pytest.fixture(params=TASKS)
def task(request):
    if request.param in NEEDS_DATA and not os.environ.get("MNEMOS_DATA"):
        pytest.skip("MNEMOS_DATA names no folder with its data")
    return named(request.param)


def test_batches_are_what_they_say(task):
    inputs, targets, scored, real = task.batch(3, torch.Generator().manual_seed(0))
    assert inputs.shape == (*real.shape, task.input_size)
    assert targets.shape[:2] == scored.shape == real.shape
    assert scored.any(1).all()
    assert not (scored & ~real).any()
    assert not inputs[~real].any() or task.input_size == 23  # bAbI's padding is a word of its own


def test_a_generator_is_a_batch(task):
    one, two, other = (task.batch(3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(one, two, strict=True))
    assert one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)


def test_guessing_costs_more_than_knowing(task):
    batch = task.batch(3, torch.Generator().manual_seed(0))
    known = 20 * batch.targets.float() - 10
    if batch.targets.dim() == 2:
        known = 20 * torch.nn.functional.one_hot(batch.targets, task.output_size).float()
    guessed = torch.zeros_like(known)
    assert task.loss(known, batch) < 0.1 < task.loss(guessed, batch)
    assert task.error(known, batch) == 0
    assert 0 < task.error(guessed, batch) <= 1


def test_names_and_sizes_are_checked():
    assert "lengths" in sizes_of("copy")
    with pytest.raises(ValueError, match="there is no task 'cop': there are associative-recall"):
        named("cop")
    with pytest.raises(ValueError, match="copy cannot be made"):
        named("copy", wdth=3)
