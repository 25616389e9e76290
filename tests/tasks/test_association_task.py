import torch

from mnemos.tasks.association import codebook, random_pairs, rebound, right


def test_pairs_are_what_their_labels_say():
    generator = torch.Generator().manual_seed(0)
    values = codebook(3, 20, 8, generator)
    pairs = random_pairs(12, 5, values, generator)
    assert pairs.keys.shape == (3, 12, 5)
    torch.testing.assert_close(pairs.keys.norm(dim=2), torch.ones(3, 12))
    assert right(pairs.values, values, pairs.labels).all()
    assert not right(-pairs.values, values, pairs.labels).any()


def test_rounds_bind_the_same_keys_to_other_values():
    generator = torch.Generator().manual_seed(0)
    values = codebook(2, 50, 8, generator)
    pairs = random_pairs(6, 5, values, generator)
    rounds = list(rebound(3, pairs, values, generator))
    for again in rounds:
        for row in range(2):
            order = (again.keys[row] @ pairs.keys[row].mT).argmax(1)
            assert sorted(order.tolist()) == list(range(6))
            assert torch.equal(pairs.keys[row, order], again.keys[row])
    assert not torch.equal(rounds[0].labels, rounds[1].labels)
