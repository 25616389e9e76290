"""What a step sees of its document."""

import torch

from mnemos.ops.windows import windows


def test_a_step_sees_the_real_steps_of_its_own_document():
    steps = torch.arange(1, 8).view(1, 7, 1)
    real = torch.tensor([[1, 0, 1, 1, 1, 0, 1]]).bool()
    document = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    seen, after = windows(torch.tensor([[[-2], [-1]]]), steps, 0, document, real, 3)
    assert seen[0, real[0], 0].tolist() == [[1, -1, -2], [3, 1, -1], [4, 0, 0], [5, 4, 0], [7, 5, 4]]
    assert after.tolist() == [[[5], [7]]]


def test_steps_lie_apart():
    steps = torch.arange(1, 7).view(1, 6, 1)
    seen, after = windows(
        torch.zeros(1, 2, 1, dtype=torch.long), steps, 0, torch.zeros_like(steps[..., 0]), None, 2, 2
    )
    assert seen[0, :, 0].tolist() == [[1, 0], [2, 0], [3, 1], [4, 2], [5, 3], [6, 4]]
    assert after.tolist() == [[[5], [6]]]


def test_what_a_reset_after_the_last_real_step_leaves():
    _, after = windows(
        torch.ones(1, 2, 1), torch.ones(1, 2, 1), 0, torch.tensor([[0, 1]]), torch.tensor([[True, False]]), 3
    )
    assert not after.any()
