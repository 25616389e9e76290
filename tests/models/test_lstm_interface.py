"""A memory behind the interface of `nn.LSTM`, beside `nn.LSTM` itself."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from mnemos.memories import Recurrent
from mnemos.models.lstm_interface import LSTMInterface


@pytest.fixture
def pair() -> tuple[LSTMInterface, nn.LSTM]:
    """The same LSTM twice."""
    torch.manual_seed(0)
    memory, theirs = Recurrent(3, 5), nn.LSTM(3, 5)
    with torch.no_grad():
        for name, value in memory.weights.named_parameters():
            theirs.get_parameter(f"{name}_l0").copy_(value)
    return LSTMInterface(memory), theirs


def test_it_answers_as_an_lstm_does(pair) -> None:
    ours, theirs = pair
    inputs = torch.randn(7, 2, 3)
    expected, (hidden, cell) = theirs(inputs)
    outputs, state = ours(inputs)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(state.hidden, hidden[0])
    torch.testing.assert_close(state.cell, cell[0])
    again, _ = ours(inputs, state)
    torch.testing.assert_close(again, theirs(inputs, (hidden, cell))[0])


def test_batch_first_and_a_single_sequence(pair) -> None:
    ours, theirs = pair
    inputs = torch.randn(2, 7, 3)
    outputs, _ = LSTMInterface(ours.memory, batch_first=True)(inputs)
    torch.testing.assert_close(outputs, theirs(inputs.transpose(0, 1))[0].transpose(0, 1))
    for batch_first in (False, True):
        alone, state = LSTMInterface(ours.memory, batch_first)(inputs[1])
        torch.testing.assert_close(alone, theirs(inputs[1])[0])
        assert state.hidden.shape == (1, 5)


@pytest.mark.parametrize("lengths", [[4, 7, 1], [7, 4, 1]])
def test_packed_sequences(pair, lengths: list[int]) -> None:
    """Whatever their order; the state's rows stay in the order given."""
    ours, theirs = pair
    sequences = [torch.randn(length, 3) for length in lengths]
    packed = pack_sequence(sequences, enforce_sorted=False)
    outputs, state = ours(packed)
    expected, (hidden, _) = theirs(packed)
    torch.testing.assert_close(outputs.data, expected.data)
    torch.testing.assert_close(state.hidden, hidden[0])
    assert torch.equal(outputs.batch_sizes, expected.batch_sizes)
    padded, found = pad_packed_sequence(outputs)
    assert found.tolist() == lengths
    torch.testing.assert_close(padded, pad_packed_sequence(expected)[0])


def test_packed_sequences_in_order(pair) -> None:
    ours, theirs = pair
    packed = pack_padded_sequence(torch.randn(7, 2, 3), torch.tensor([7, 2]))
    torch.testing.assert_close(ours(packed)[0].data, theirs(packed)[0].data)


def test_padding_may_hold_anything(pair) -> None:
    ours, _ = pair
    inputs = torch.randn(4, 2, 3)
    spoiled = inputs.clone()
    spoiled[2:, 1] = torch.nan
    lengths = torch.tensor([4, 2])
    clean, dirty = (ours(pack_padded_sequence(x, lengths))[0].data for x in (inputs, spoiled))
    assert torch.equal(clean, dirty)
