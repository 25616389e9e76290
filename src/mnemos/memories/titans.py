"""The long-term memory of Titans: a network that learns at test time, with momentum and forgetting."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import Projection
from mnemos.memories.inner_network import Error, InnerNetwork
from mnemos.memories.memoriser import Memoriser
from mnemos.ops.delta_rule import unit
from mnemos.ops.test_time import squared_error


@final
class Titans(Memoriser):
    """The neural long-term memory module (LMM) of Titans.

    Behrouz, Zhong & Mirrokni 2025, "Titans: Learning to Memorize at Test Time", section 3. An MLP for each
    head whose weights every step changes: surprise is the gradient of |M(k) - v|² (eq. 12), it adds up with
    momentum (eq. 10), and what is old decays (eq. 13),

        S_t = η_t S_{t-1} - θ_t ∇l(M_{t'}; k_t, v_t)        M_t = (1 - α_t) M_{t-1} + S_t

    with θ, η and α in (0, 1), made of the input for each head. As in section 3.2 the gradient is taken at
    the weights with which the chunk began. Queries, keys and values are linear maps of the input through
    SiLU, queries and keys scaled to length one. Short convolutions, norm and output gate are left to the
    network around it.

    Not in the paper: a gradient longer than `largest_surprise` is scaled down to it. At inputs of ordinary
    size it never is. Without a limit, descent in a deep network diverges once its inputs are large.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent networks.
        key_size: width of a head's keys.
        value_size: width of a head's values.
        depth: layers of the network (the paper's L_M); 1 is a matrix.
        expansion: hidden width over key_size.
        chunk_size: steps whose gradients are taken at the same weights. Part of the definition; 1 is the rule
            without chunks.
        momentum: whether η is learned; False leaves momentum out (an ablation of the paper's table 5).
        forgetting: whether α is learned; False never forgets (likewise).
        error: slope of the loss at the answers (MIRAS' attentional bias); see `mnemos.ops.test_time`.
        largest_surprise: length of the longest gradient of one step, all layers of a head together.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int = 64,
        value_size: int = 64,
        depth: int = 2,
        expansion: int = 4,
        chunk_size: int = 16,
        momentum: bool = True,
        forgetting: bool = True,
        error: Error = squared_error,
        largest_surprise: float = 100.0,
    ) -> None:
        super().__init__(
            input_size,
            output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            depth=depth,
            expansion=expansion,
            chunk_size=chunk_size,
        )
        self.depth, self.expansion, self.chunk_size = depth, expansion, chunk_size
        self.momentum, self.forgetting, self.error = momentum, forgetting, error
        self.largest_surprise = largest_surprise
        self.has_momentum = momentum
        self.network = InnerNetwork(heads, [key_size, *[expansion * key_size] * (depth - 1), value_size])
        self.add_maps()
        # θ, α, η before the sigmoid. At first a step is small, and little is forgotten.
        starts = {"rate": -3.0, "decay": -5.0, "momentum": 0.0}
        wanted = {"rate": True, "decay": forgetting, "momentum": momentum}
        self.gates = nn.ModuleDict({name: nn.Linear(input_size, heads) for name in starts if wanted[name]})
        for name, gate in self.gates.items():
            nn.init.constant_(gate.get_parameter("bias"), starts[name])

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        """The slow network: queries, keys, values, and the gates in (0, 1) of each head."""
        linears = (self.query, self.key, self.value)
        queries, keys, values = (functional.silu(linear(inputs)) for linear in linears)
        gates = {name: gate(inputs).sigmoid() for name, gate in self.gates.items()}
        return Projection(queries, keys, values, gates)

    def address(self, keys: Float[Tensor, "*shape keys"]) -> Float[Tensor, "*shape keys"]:
        return unit(keys)
