import torch

from mnemos.tasks import adding


def test_two_marks_one_in_each_half_and_their_sum() -> None:
    inputs, targets = adding.batch(500, 21, torch.Generator().manual_seed(0))
    numbers, marks = inputs.unbind(2)
    assert inputs.shape == (500, 21, adding.INPUT_SIZE)
    assert (marks[:, :10].sum(1) == 1).all()
    assert (marks[:, 10:].sum(1) == 1).all()
    torch.testing.assert_close(targets, (numbers * marks).sum(1))


def test_the_baseline_is_the_loss_of_always_answering_one() -> None:
    _, targets = adding.batch(20_000, 6, torch.Generator().manual_seed(1))
    assert abs((targets - 1).square().mean().item() - adding.BASELINE) < 0.005


def test_the_same_seed_gives_the_same_batch() -> None:
    first, second = (adding.batch(4, 9, torch.Generator().manual_seed(2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
