"""A memory in the place of `nn.LSTM`."""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from mnemos.memories.base import Memory


@final
class LSTMInterface(nn.Module):
    """Calls a memory as `nn.LSTM` is called: `output, state = layer(input, state)`.

    What differs is the state, which is the memory's own: a tuple of tensors whose first axis is the batch, in
    the order of the rows as they were given, also where sequences are packed. As there, None means to begin
    afresh, and padding is neither read nor written.

    Args:
        memory: any memory.
        batch_first: whether inputs and outputs are (batch, time, ...) rather than (time, batch, ...), as for
            `nn.LSTM`. A single sequence is (time, ...) either way.
    """

    def __init__(self, memory: Memory, batch_first: bool = False) -> None:
        super().__init__()
        self.memory, self.batch_first = memory, batch_first

    def forward(self, input: Tensor | PackedSequence, state: Any = None) -> tuple[Any, Any]:
        if isinstance(input, PackedSequence):
            return self._packed(input, state)
        alone = input.dim() == 2
        inputs = input.unsqueeze(0) if alone else input if self.batch_first else input.transpose(0, 1)
        outputs, state = self.memory(inputs, state)
        outputs = outputs.squeeze(0) if alone else outputs if self.batch_first else outputs.transpose(0, 1)
        return outputs, state

    def _packed(self, packed: PackedSequence, state: Any) -> tuple[PackedSequence, Any]:
        inputs, lengths = pad_packed_sequence(packed, batch_first=True)
        mask = torch.arange(inputs.shape[1]) < lengths.unsqueeze(1)
        outputs, state = self.memory(inputs, state, mask=mask.to(inputs.device))
        sorted_already = packed.sorted_indices is None
        again = pack_padded_sequence(outputs, lengths, batch_first=True, enforce_sorted=sorted_already)
        return again, state
