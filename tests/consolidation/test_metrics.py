"""The measures of continual learning, on matrices whose answers are known, and what holds between them."""

from math import nan

import pytest
import torch
from jaxtyping import TypeCheckError

from mnemos.consolidation import average_accuracy, backward_transfer, forgetting, forward_transfer

# Made by hand. Context 0 was best after context 1, and context 1 is better at the end than ever before.
KNOWN = torch.tensor([[0.9, 0.5, 0.1], [1.0, 0.6, 0.4], [0.3, 0.8, 0.7]])
MEASURES = [average_accuracy, backward_transfer, forgetting]


def drawn(seed: int, contexts: int = 5) -> torch.Tensor:
    return torch.rand(contexts, contexts, generator=torch.Generator().manual_seed(seed))


def test_a_matrix_by_hand():
    assert average_accuracy(KNOWN).item() == pytest.approx((0.3 + 0.8 + 0.7) / 3)
    assert backward_transfer(KNOWN).item() == pytest.approx(((0.3 - 0.9) + (0.8 - 0.6)) / 2)
    assert forgetting(KNOWN).item() == pytest.approx(((1.0 - 0.3) + (0.6 - 0.8)) / 2)
    baseline = torch.tensor([0.7, 0.2, 0.1])
    assert forward_transfer(KNOWN, baseline).item() == pytest.approx(((0.5 - 0.2) + (0.4 - 0.1)) / 2)


def test_learning_one_thing_only_is_forgetting_all_others():
    only = torch.eye(4)
    assert average_accuracy(only) == 0.25
    assert backward_transfer(only) == -1
    assert forgetting(only) == 1
    assert forward_transfer(only, torch.zeros(4)) == 0


def test_joint_learning_forgets_nothing():
    joint = torch.full((4, 4), 0.98)
    assert average_accuracy(joint).item() == pytest.approx(0.98)
    assert backward_transfer(joint) == forgetting(joint) == 0
    assert forward_transfer(joint, joint[0]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_best_ever_is_at_least_what_was_just_learned(seed):
    accuracies = drawn(seed)
    assert forgetting(accuracies) >= -backward_transfer(accuracies)
    falling = accuracies.sort(0, descending=True).values.tril()  # best when it was just learned
    torch.testing.assert_close(forgetting(falling), -backward_transfer(falling))


@pytest.mark.parametrize("seed", range(5))
def test_what_only_grows_is_not_forgotten(seed):
    rising = drawn(seed).sort(0).values
    assert forgetting(rising) <= 0 <= backward_transfer(rising)
    twice = torch.cat([rising[:-1], rising[-2:-1]])
    assert forgetting(twice) == 0


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_in_the_units_of_the_accuracies(seed):
    accuracies, baseline = drawn(seed).double(), drawn(seed + 10)[0].double()
    for measure in MEASURES:
        torch.testing.assert_close(measure(100 * accuracies), 100 * measure(accuracies))
    torch.testing.assert_close(
        forward_transfer(100 * accuracies, 100 * baseline), 100 * forward_transfer(accuracies, baseline)
    )
    # As much more everywhere is no transfer, and nothing forgotten.
    torch.testing.assert_close(average_accuracy(accuracies + 1), average_accuracy(accuracies) + 1)
    for measure in (backward_transfer, forgetting):
        torch.testing.assert_close(measure(accuracies + 1), measure(accuracies))


def test_what_a_measure_does_not_need_need_not_be_measured():
    seen = torch.where(torch.ones(3, 3).tril().bool(), KNOWN, nan)  # each context from when it was learned on
    for measure in MEASURES:
        assert measure(seen) == measure(KNOWN)
    ends = torch.full((3, 3), nan)
    ends[-1], ends[0, 0], ends[1, 1] = KNOWN[-1], KNOWN[0, 0], KNOWN[1, 1]
    assert backward_transfer(ends) == backward_transfer(KNOWN)
    assert forgetting(ends) == -backward_transfer(KNOWN)  # the best that was measured
    above = torch.full((3, 3), nan)
    above[0, 1], above[1, 2] = KNOWN[0, 1], KNOWN[1, 2]
    baseline = torch.tensor([nan, 0.2, 0.1])
    assert forward_transfer(above, baseline).item() == pytest.approx(0.3)


def test_what_was_learned_so_far_is_the_upper_left():
    assert average_accuracy(KNOWN[:2, :2]).item() == pytest.approx(0.8)
    assert forgetting(KNOWN[:2, :2]).item() == pytest.approx(-0.1)
    assert average_accuracy(KNOWN[:1, :1]).item() == pytest.approx(0.9)


def test_what_was_not_measured_is_named():
    missing = KNOWN.clone()
    missing[2, 1] = nan
    for measure in MEASURES:
        with pytest.raises(ValueError, match=r"measured at \[\[2, 1\]\] too"):
            measure(missing)
    missing = KNOWN.clone()
    missing[:2, 1] = nan
    with pytest.raises(ValueError, match=r"measured at \[\[1, 1\]\] too"):
        backward_transfer(missing)
    with pytest.raises(ValueError, match=r"for contexts \[1\] too"):
        forgetting(missing)
    with pytest.raises(ValueError, match=r"measured at \[\[0, 1\]\] too"):
        forward_transfer(missing, torch.zeros(3))
    with pytest.raises(ValueError, match="baseline must be measured"):
        forward_transfer(KNOWN, torch.tensor([0.0, 0.0, nan]))


def test_matrices_that_cannot_be_are_refused():
    for measure in MEASURES:
        with pytest.raises((ValueError, TypeCheckError), match="accuracies"):
            measure(KNOWN[:2])
    for measure in MEASURES[1:]:
        with pytest.raises(ValueError, match=r"at least 2, not \(1, 1\)"):
            measure(KNOWN[:1, :1])
    with pytest.raises(ValueError, match=r"at least 1, not \(0, 0\)"):
        average_accuracy(torch.zeros(0, 0))
    with pytest.raises((ValueError, TypeCheckError), match="baseline"):
        forward_transfer(KNOWN, torch.zeros(2))
