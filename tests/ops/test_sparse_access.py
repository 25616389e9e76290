import torch

from mnemos.ops.sparse_access import erase_and_add, least_recent_slots, nearest_slots, slot_weights


def test_the_nearest_are_those_of_the_greatest_cosine_whatever_their_length():
    memory = torch.tensor([[[3.0, 0], [0, 0.1], [-1, 0], [5, 5], [0, 0]]])
    queries = torch.tensor([[[0.1, 2], [-1, -0.1]]], requires_grad=True)
    assert nearest_slots(memory, queries, 3).tolist() == [[[1, 3, 0], [2, 1, 3]]]


def test_an_empty_slot_comes_after_the_least_similar_and_has_no_weight():
    memory = torch.tensor([[[0.0, 0], [-1, 0]]])
    queries = torch.tensor([[[1.0, 0]]])
    found = nearest_slots(memory, queries, 2)
    assert found.tolist() == [[[1, 0]]]
    rows = memory[:, found[0, 0]].unsqueeze(1)
    assert slot_weights(queries, torch.ones(1, 1), rows).tolist() == [[[1, 0]]]
    assert slot_weights(queries, torch.ones(1, 1), torch.zeros(1, 1, 2, 2)).tolist() == [[[0, 0]]]


def test_weights_grow_from_even_to_one_hot_with_the_strength():
    rows = torch.eye(3).view(1, 1, 3, 3)
    queries = torch.tensor([[[1.0, 2, 3]]])
    torch.testing.assert_close(slot_weights(queries, torch.zeros(1, 1), rows), torch.full((1, 1, 3), 1 / 3))
    sharp = slot_weights(queries, torch.full((1, 1), 1e4), rows)
    torch.testing.assert_close(sharp, torch.tensor([[[0.0, 0, 1]]]))


def test_weights_over_all_slots_are_those_of_dense_content_addressing():
    from mnemos.ops.content import content_weights

    torch.manual_seed(0)
    memory, queries, strengths = torch.randn(2, 5, 3), torch.randn(2, 2, 3), torch.rand(2, 2)
    dense = content_weights(queries, strengths, memory)
    rows = memory.unsqueeze(1).expand(-1, 2, -1, -1)
    torch.testing.assert_close(slot_weights(queries, strengths, rows), dense)


def test_the_least_recent_come_first_and_begin_again():
    last_access = torch.tensor([[30, 10, 20]])
    assert least_recent_slots(last_access, 2).tolist() == [[1, 2]]
    assert least_recent_slots(last_access, 5).tolist() == [[1, 2, 0, 1, 2]]


def test_slots_are_emptied_before_they_are_added_to():
    memory = torch.arange(6.0).view(1, 3, 2) + 1
    slots, changes = torch.tensor([[0, 2, 2]]), torch.tensor([[[1.0, 1], [2, 2], [3, 3]]])
    after = erase_and_add(memory, torch.tensor([[2]]), slots, changes)
    assert after.tolist() == [[[2, 3], [3, 4], [5, 5]]]
