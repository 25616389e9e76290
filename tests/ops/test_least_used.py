import torch

from mnemos.ops.least_used import faded_usage, least_used_weights


def test_the_least_used_slots_come_one_by_one():
    usage = torch.tensor([[0.3, 0.1, 0.2, 0.4]], requires_grad=True)
    weights = least_used_weights(usage, 3)
    assert weights.argmax(2).tolist() == [[1, 2, 0]]
    assert weights.sum(2).tolist() == [[1, 1, 1]]
    assert not weights.requires_grad


def test_of_equals_the_first_comes_first_and_all_come_before_any_comes_again():
    assert least_used_weights(torch.zeros(1, 3), 7).argmax(2).tolist() == [[0, 1, 2, 0, 1, 2, 0]]


def test_usage_forgets_all_with_a_decay_of_zero_and_nothing_with_one():
    usage, reads, writes = torch.rand(2, 4), torch.rand(2, 3, 4), torch.rand(2, 3, 4)
    now = (reads + writes).sum(1)
    torch.testing.assert_close(faded_usage(usage, reads, writes, 0.0), now)
    torch.testing.assert_close(faded_usage(usage, reads, writes, 1.0), usage + now)
    torch.testing.assert_close(faded_usage(usage, 0 * reads, 0 * writes, 0.95), 0.95 * usage)
