"""The classes of tokens in the study of Engram, on a text that one can count oneself."""

import torch

from mnemos.studies.engram import Network, Text, _dense, _joined, _knocked_out, _times


def test_ngrams_are_counted():
    read, asked = torch.tensor([1, 2, 3, 1, 2, 4]), torch.tensor([1, 2, 3, 4])
    assert _times(_joined(read, 2), _joined(asked, 2)).tolist() == [2, 1, 0]
    assert _times(_joined(read, 3), _joined(asked, 3)).tolist() == [1, 0]


def test_a_fact_is_a_rare_token_that_two_others_tell():
    filler = torch.arange(1000, 2000)  # so that 3 is rare
    read = torch.cat([torch.tensor([1, 2, 3, 1, 2, 3, 1, 2, 4]), filler])
    asked = torch.tensor([1, 2, 3, 1, 2, 4, 7, 8])
    rise = torch.tensor([0.1, 5.0, 0.2, 0.3, 0.4, 0.5, 0.6])  # of 2, 3, 1, 2, 4, 7, 8
    found = _knocked_out(rise, Text(read, asked, torch.arange(2048)))
    # 3 came after 1 2 twice of three times; 4 once; 1 after 2 3 twice of two, 2 after 3 1 twice of two.
    facts = torch.tensor([5.0, 0.2, 0.3])
    assert found["share_facts"] == 0.5
    torch.testing.assert_close(found["rise_facts"], facts.mean().item())
    torch.testing.assert_close(found["rise_others"], 0.5)
    torch.testing.assert_close(found["rise_by_count"]["1"], 0.4)
    torch.testing.assert_close(found["rise_by_count"]["0"], 0.55)


def test_a_dense_network_is_as_large_as_it_must_be():
    smallest, larger = (Network(width, None, torch.arange(2048)) for width in (352, 400))
    for amount in (Network.multiplications, Network.size):
        assert amount(_dense(larger, amount)) == amount(larger) > amount(_dense(smallest, amount))
