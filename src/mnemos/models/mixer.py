"""What stands around a memory in today's sequence models: a short convolution, a norm and a gate."""

from typing import Any, NamedTuple, final

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import silu

from mnemos.memories.base import Memory
from mnemos.memories.short_convolution import ShortConvolution, ShortConvolutionState
from mnemos.memories.wiring import check_width, set_naive


class MixerState(NamedTuple):
    """The states of a mixer's two parts."""

    convolution: ShortConvolutionState
    memory: Any


@final
class Mixer(Memory):
    """A memory told what came just before each step, and whose answers are normed and gated.

    y = norm(memory(silu(convolution(x)))) ⊙ silu(G x): the layer around the state in Mamba (Gu & Dao 2023),
    Gated DeltaNet (Yang, Kautz & Hatamizadeh 2025) and Titans (Behrouz et al. 2025). Without the convolution
    no key can say what came before its value, and recall of pairs fails (Arora et al. 2024). One convolution
    serves all projections of the memory, as in Mamba, where DeltaNet has one for each; the norm is over all
    heads.

    Args:
        memory: of one width for inputs and outputs.
        kernel_size: steps of the convolution, the present one included.
    """

    def __init__(self, memory: Memory, kernel_size: int = 4) -> None:
        super().__init__()
        check_width(memory)
        self.input_size = self.output_size = memory.input_size
        self.kernel_size = kernel_size
        self.convolution = ShortConvolution(memory.input_size, kernel_size)
        self.memory = memory
        self.norm = nn.RMSNorm(memory.output_size, eps=1e-5)
        self.gate = nn.Linear(memory.input_size, memory.output_size, bias=False)

    @property
    def naive(self) -> bool:
        """Whether both parts take their plain loops."""
        return self.convolution.naive

    @naive.setter
    def naive(self, naive: bool) -> None:
        set_naive(naive, self.convolution, self.memory)

    def initial_state(self, batch_size: int) -> MixerState:
        return MixerState(self.convolution.initial_state(batch_size), self.memory.initial_state(batch_size))

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: MixerState | None = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], MixerState]:
        state, real, _ = self.begin(inputs, state, mask, reset)
        if mask is not None:
            inputs = inputs.masked_fill(~real.unsqueeze(2), 0)  # padding may hold anything, NaN included
        told, convolution = self.convolution(inputs, state.convolution, mask=mask, reset=reset)
        read, memory = self.memory(silu(told), state.memory, mask=mask, reset=reset)
        return self.norm(read.to(self.norm.weight)) * silu(self.gate(inputs)), MixerState(convolution, memory)
