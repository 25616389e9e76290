"""The same numbers as torch's own networks, gates that can be read, and gates that start open."""

import pytest
import torch
from torch import nn

from mnemos.memories import Recurrent
from mnemos.memories.recurrent import LSTMState

NETWORKS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def same_as_torch(cell):
    torch.manual_seed(0)
    memory = Recurrent(3, 5, cell=cell)
    network = NETWORKS[cell](3, 5, batch_first=True)
    network.load_state_dict({f"{name}_l0": weight for name, weight in memory.weights.state_dict().items()})
    return memory, network


@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("cell", NETWORKS)
def test_outputs_state_and_gradients_are_those_of_torch(cell, naive):
    memory, network = same_as_torch(cell)
    memory.naive = naive
    inputs = torch.randn(2, 9, 3)
    outputs, state = memory(inputs)
    expected, last = network(inputs)
    torch.testing.assert_close(outputs, expected)
    last = last if isinstance(last, tuple) else (last,)
    for mine, torchs in zip(state, last, strict=False):
        torch.testing.assert_close(mine, torchs[0])
    outputs.square().sum().backward()
    expected.square().sum().backward()
    for name, weight in memory.weights.named_parameters():
        torch.testing.assert_close(weight.grad, getattr(network, f"{name}_l0").grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", NETWORKS)
def test_padding_is_what_packing_is_in_torch(cell):
    memory, network = same_as_torch(cell)
    lengths = torch.tensor([9, 4])
    inputs = torch.randn(2, 9, 3)
    outputs, state = memory(inputs, mask=torch.arange(9) < lengths.unsqueeze(1))
    packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True)
    expected, last = network(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    torch.testing.assert_close(outputs, expected)
    last = last if isinstance(last, tuple) else (last,)
    torch.testing.assert_close(state.hidden, last[0][0])


@pytest.mark.parametrize("naive", [False, True])
def test_the_state_of_an_lstm_holds_the_gates_of_the_last_real_step(naive):
    torch.manual_seed(0)
    memory = Recurrent(3, 5)
    memory.naive = naive
    inputs = torch.randn(2, 6, 3)
    _, before = memory(inputs[:, :3])
    _, state = memory(inputs[:, :4])
    weights = memory.weights
    raw = inputs[:, 3] @ weights.weight_ih.T + weights.bias_ih + before.hidden @ weights.weight_hh.T
    to_input, to_forget, new, to_output = (raw + weights.bias_hh).chunk(4, dim=1)
    torch.testing.assert_close(state.input_gate, to_input.sigmoid())
    torch.testing.assert_close(state.forget_gate, to_forget.sigmoid())
    torch.testing.assert_close(state.output_gate, to_output.sigmoid())
    torch.testing.assert_close(state.cell, state.forget_gate * before.cell + state.input_gate * new.tanh())
    torch.testing.assert_close(state.hidden, state.output_gate * state.cell.tanh())
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    torch.testing.assert_close(memory(inputs, mask=mask)[1], state)


def test_the_update_gate_of_a_gru_says_how_much_was_kept():
    torch.manual_seed(0)
    memory = Recurrent(3, 5, cell="gru")
    inputs = torch.randn(2, 4, 3)
    _, before = memory(inputs[:, :3])
    _, state = memory(inputs)
    new = (state.hidden - state.update_gate * before.hidden) / (1 - state.update_gate)
    projected = inputs[:, 3] @ memory.weights.weight_ih.T + memory.weights.bias_ih
    recurrent = before.hidden @ memory.weights.weight_hh.T + memory.weights.bias_hh
    expected = (projected[:, 10:] + state.reset_gate * recurrent[:, 10:]).tanh()
    torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-5)


def test_a_closed_input_gate_and_an_open_forget_gate_keep_the_cell_for_ever():
    """The constant error carousel: Hochreiter & Schmidhuber 1997, section 3.2."""
    memory = Recurrent(3, 5)
    with torch.no_grad():
        memory.weights.bias_ih[:5] = -200
        memory.weights.bias_ih[5:10] = 200
    state = memory.initial_state(2)._replace(cell=torch.randn(2, 5, requires_grad=True))
    _, after = memory(torch.randn(2, 1000, 3), state)
    assert torch.equal(after.cell, state.cell)
    gradient = torch.autograd.grad(after.cell.sum(), state.cell)[0]
    torch.testing.assert_close(gradient, torch.ones(2, 5))


def start_biases(memory):
    both = memory.weights.bias_ih + memory.weights.bias_hh
    return both.detach().split(memory.hidden_size)


def test_forget_gates_start_with_bias_one():
    _, forget, _, _ = start_biases(Recurrent(3, 50))
    assert torch.equal(forget, torch.ones(50))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_chrono_initialisation_spreads_time_constants_over_the_range(cell):
    """A gate of bias b forgets with time constant 1 + exp(b): Tallec & Ollivier 2018, section 2."""
    torch.manual_seed(0)
    gates = start_biases(Recurrent(3, 2000, cell=cell, longest_dependency=101))
    constants = 1 + gates[1].exp()
    assert constants.min() >= 2
    assert constants.max() <= 101
    quartiles = constants.quantile(torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([26.75, 51.5, 76.25]), rtol=0.1, atol=0)
    if cell == "lstm":
        assert torch.equal(gates[0], -gates[1])


def test_an_lstm_learns_to_remember_across_a_delay():
    """The sign of the first input, asked for 20 steps later: chance is 0.5."""
    torch.manual_seed(0)
    memory, head = Recurrent(1, 8, longest_dependency=25), nn.Linear(8, 1)
    optimiser = torch.optim.Adam([*memory.parameters(), *head.parameters()], lr=0.02)
    for _ in range(150):
        inputs = torch.randn(32, 21, 1)
        answers = head(memory(inputs)[0][:, -1]).squeeze(1)
        right = (inputs[:, 0, 0] > 0).float()
        loss = nn.functional.binary_cross_entropy_with_logits(answers, right)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    inputs = torch.randn(500, 21, 1)
    said = head(memory(inputs)[0][:, -1]).squeeze(1) > 0
    assert (said == (inputs[:, 0, 0] > 0)).float().mean() > 0.9


def test_the_error_says_which_argument_is_wrong():
    with pytest.raises(ValueError, match="cell must be one of 'rnn', 'gru', 'lstm', not 'elman'"):
        Recurrent(3, 5, cell="elman")
    with pytest.raises(ValueError, match="longest_dependency must be above 2"):
        Recurrent(3, 5, longest_dependency=2)
    with pytest.raises(ValueError, match="needs gates"):
        Recurrent(3, 5, cell="rnn", longest_dependency=20)
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, time, 3\)"):
        Recurrent(3, 5)(torch.zeros(2, 4, 7))


def test_a_state_is_a_named_tuple_of_rows():
    state = Recurrent(3, 5).initial_state(2)
    assert isinstance(state, LSTMState)
    assert {tensor.shape for tensor in state} == {(2, 5)}
