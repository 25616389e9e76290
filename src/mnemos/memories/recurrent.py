"""Recurrent networks as memories: the simple RNN, the LSTM and the GRU over torch's own cells.

Elman 1990, "Finding Structure in Time"; Hochreiter & Schmidhuber 1997, "Long Short-Term Memory", with
the forget gate of Gers, Schmidhuber & Cummins 2000; Cho et al. 2014, "Learning Phrase Representations
using RNN Encoder-Decoder".
"""

from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.stepped import SteppedMemory


class RNNState(NamedTuple):
    hidden: Float[Tensor, "batch width"]  # h_t


class GRUState(NamedTuple):
    """Gates are those of the last real step, in 0 to 1."""

    hidden: Float[Tensor, "batch width"]  # h_t
    reset_gate: Float[Tensor, "batch width"]  # r_t
    update_gate: Float[Tensor, "batch width"]  # z_t: 1 keeps, as in torch and unlike in some papers


class LSTMState(NamedTuple):
    """Gates are those of the last real step, in 0 to 1."""

    hidden: Float[Tensor, "batch width"]  # h_t
    cell: Float[Tensor, "batch width"]  # c_t
    input_gate: Float[Tensor, "batch width"]  # i_t
    forget_gate: Float[Tensor, "batch width"]  # f_t: 1 keeps
    output_gate: Float[Tensor, "batch width"]  # o_t


def _rnn_step(from_input: Tensor, from_hidden: Tensor, state: RNNState) -> RNNState:
    return RNNState((from_input + from_hidden).tanh())


def _gru_step(from_input: Tensor, from_hidden: Tensor, state: GRUState) -> GRUState:
    input_reset, input_update, input_new = from_input.chunk(3, dim=-1)
    hidden_reset, hidden_update, hidden_new = from_hidden.chunk(3, dim=-1)
    reset_gate = (input_reset + hidden_reset).sigmoid()
    update_gate = (input_update + hidden_update).sigmoid()
    new = (input_new + reset_gate * hidden_new).tanh()
    return GRUState(new + update_gate * (state.hidden - new), reset_gate, update_gate)


def _lstm_step(from_input: Tensor, from_hidden: Tensor, state: LSTMState) -> LSTMState:
    to_input, to_forget, new, to_output = (from_input + from_hidden).chunk(4, dim=-1)
    input_gate, forget_gate, output_gate = to_input.sigmoid(), to_forget.sigmoid(), to_output.sigmoid()
    cell = forget_gate * state.cell + input_gate * new.tanh()
    return LSTMState(output_gate * cell.tanh(), cell, input_gate, forget_gate, output_gate)


class _Kind(NamedTuple):
    """What tells one cell from another."""

    state: type[Any]
    cell: Callable[[int, int], nn.RNNCellBase]
    step: Callable[[Tensor, Tensor, Any], Any]
    sequence: Callable[..., tuple[Tensor, ...]]  # torch's fused run over a sequence
    carried: int  # how many of the state's tensors the next step needs; the rest are gates to look at


_KINDS = {
    "rnn": _Kind(RNNState, nn.RNNCell, _rnn_step, torch.rnn_tanh, 1),
    "gru": _Kind(GRUState, nn.GRUCell, _gru_step, torch.gru, 1),
    "lstm": _Kind(LSTMState, nn.LSTMCell, _lstm_step, torch.lstm, 2),
}


@final
class Recurrent(SteppedMemory):
    """An RNN, GRU or LSTM whose whole memory, gates included, is the state.

    The LSTM's forget gates start with bias 1 (Jozefowicz, Zaremba & Sutskever 2015): torch starts them
    near 0, and then half of the memory is gone after every step.

    Args:
        hidden_size: width of the hidden state, which is the output.
        cell: "rnn" (tanh), "gru" or "lstm". `memory.weights` is torch's cell and has its weights.
        longest_dependency: steps over which the task needs a memory, above 2. The gates then start with
            time constants spread over that range (chrono initialisation, Tallec & Ollivier 2018, eq.
            16): the forget gate's bias log U(1, longest_dependency - 1) and the input gate's minus
            that, or the GRU's update gate likewise. Not for "rnn", which has no gates.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: str = "lstm",
        longest_dependency: int | None = None,
    ) -> None:
        super().__init__()
        if cell not in _KINDS:
            raise ValueError(f"cell must be one of {', '.join(map(repr, _KINDS))}, not {cell!r}")
        if longest_dependency is not None and (cell == "rnn" or longest_dependency <= 2):
            raise ValueError(
                f"longest_dependency must be above 2 and needs gates, not {longest_dependency} with {cell!r}"
            )
        self.input_size = input_size
        self.hidden_size = self.output_size = hidden_size
        self.cell = cell
        self.longest_dependency = longest_dependency
        self.naive = False
        self._kind = _KINDS[cell]
        self.weights = self._kind.cell(input_size, hidden_size)
        self._start_gates()

    @torch.no_grad()
    def _start_gates(self) -> None:
        if self.cell == "rnn" or (self.cell == "gru" and self.longest_dependency is None):
            return
        size = self.hidden_size
        # Torch has two biases that add up. The second gate is the one that keeps, for both kinds.
        given, extra = self.weights.bias_ih[: 2 * size], self.weights.bias_hh[: 2 * size]
        if self.longest_dependency is None:
            given[size:], extra[size:] = 1.0, 0.0
            return
        given[size:].uniform_(1, self.longest_dependency - 1).log_()
        extra[size:] = 0.0
        if self.cell == "lstm":
            given[:size], extra[:size] = -given[size:], 0.0

    def initial_state(self, batch_size: int) -> Any:
        zeros = [self._origin.new_zeros(batch_size, self.hidden_size) for _ in self._kind.state._fields]
        return self._kind.state(*zeros)

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: Any = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], Any]:
        state, _, _ = self.begin(inputs, state, mask, reset)
        if mask is not None or reset is not None or not self._can_fuse(inputs):
            return super().forward(inputs, state, mask=mask, reset=reset)
        early, state = self._fused(inputs[:, :-1], state)
        # The loop takes the last step, so that the gates of that step are in the state.
        late, state = super().forward(inputs[:, -1:], state)
        return torch.cat([early, late], dim=1), state

    def prepare(self, inputs: Float[Tensor, "*shape input"]) -> Float[Tensor, "*shape prepared"]:
        """The inputs' share of every gate."""
        return functional.linear(inputs, self.weights.weight_ih, self.weights.bias_ih)

    def step(self, prepared: Float[Tensor, "batch prepared"], state: Any) -> tuple[Tensor, Any]:
        from_hidden = functional.linear(state.hidden, self.weights.weight_hh, self.weights.bias_hh)
        # In the state's precision: half-precision gates would let the state's dtype drift.
        state = self._kind.step(prepared.to(state.hidden), from_hidden.to(state.hidden), state)
        return state.hidden, state

    def _can_fuse(self, inputs: Tensor) -> bool:
        # torch.compile cannot trace torch's fused run and does not need it; under autocast its dtypes vary.
        plain = self.naive or torch.compiler.is_compiling() or torch.is_autocast_enabled(inputs.device.type)
        return not plain and inputs.shape[1] > 2

    def _fused(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Torch's own run over the sequence; the gates in the state stay as they were."""
        cell, carried = self.weights, self._kind.carried
        first = [tensor.unsqueeze(0) for tensor in state[:carried]]
        weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
        outputs, *last = self._kind.sequence(
            inputs, first if carried > 1 else first[0], weights, True, 1, 0.0, self.training, False, True
        )
        return outputs, self._kind.state(*(tensor.squeeze(0) for tensor in last), *state[carried:])
