"""Test-time training layers: TTT-Linear and TTT-MLP."""

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.base import Projection, check_sizes
from mnemos.memories.inner_network import InnerNetwork
from mnemos.memories.memoriser import Memoriser
from mnemos.ops.test_time import squared_error


class TestTimeTraining(Memoriser):
    """The layer of Sun et al. 2024, "Learning to (Learn at Test Time): RNNs with Expressive Hidden States".

    The hidden state is the weights W of a model f, and a step trains it by itself (eqs. 1 to 4, section 2.4):

        W_t = W_{t-1} - η_t ∇l(W_{t'}; x_t)        l = |f(θ_K x; W) - θ_V x|²        z_t = f(θ_Q x_t; W)

    where t' is the start of the chunk (the paper's mini-batch) and f(x) = x + γ norm(model(x)) + β. The
    initial weights are learned, and so is the rate, η_t = `base_rate` σ(θ_lr · x_t) for each head. As in the
    authors' program, and not in their text, it is divided by the width of a head. There is no momentum, and
    nothing decays. The authors' gate and short convolutions are left to the network around it, and their
    factor 1 / i for the i-th step of a mini-batch is left out.

    Not in the paper: gradients longer than `largest_surprise` are scaled down, as in `Titans`.
    """

    __test__ = False  # no test for pytest to collect
    has_momentum = False

    def __init__(
        self,
        input_size: int,
        output_size: int | None,
        heads: int,
        key_size: int,
        hidden: Sequence[int],
        chunk_size: int,
        base_rate: float,
        residual: bool,
        largest_surprise: float,
    ) -> None:
        super().__init__(
            input_size,
            output_size,
            heads=heads,
            key_size=key_size,
            value_size=key_size,
            chunk_size=chunk_size,
        )
        self.chunk_size = chunk_size
        self.base_rate, self.residual, self.largest_surprise = base_rate, residual, largest_surprise
        self.error = squared_error
        self.network = InnerNetwork(heads, [key_size, *hidden, key_size], bias=True, residual=residual)
        self.add_maps()  # θ_Q, θ_K, θ_V
        self.rate = nn.Linear(input_size, heads)  # θ_lr

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        """The views θ_Q x, θ_K x and θ_V x, and the rate of each head."""
        rate = self.rate(inputs).sigmoid() * (self.base_rate / self.key_size)
        return Projection(self.query(inputs), self.key(inputs), self.value(inputs), {"rate": rate})

    def address(self, keys: Float[Tensor, "*shape keys"]) -> Float[Tensor, "*shape keys"]:
        return keys


@final
class TTTLinear(TestTimeTraining):
    """TTT-Linear: a matrix and a bias for each head, trained by every step; see `TestTimeTraining`.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent models.
        key_size: width of a head's keys, which is that of its values.
        chunk_size: the paper's mini-batch: steps whose gradients are taken at the same weights.
        base_rate: η_base.
        residual: f as above; False is the bare model, of which one chunk from zero is linear attention.
        largest_surprise: length of the longest gradient of one step.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int = 64,
        chunk_size: int = 16,
        base_rate: float = 1.0,
        residual: bool = True,
        largest_surprise: float = 100.0,
    ) -> None:
        super().__init__(
            input_size, output_size, heads, key_size, [], chunk_size, base_rate, residual, largest_surprise
        )


@final
class TTTMLP(TestTimeTraining):
    """TTT-MLP: for each head a network with one hidden layer, trained by every step; see `TestTimeTraining`.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent models.
        key_size: width of a head's keys, which is that of its values.
        expansion: hidden width over key_size.
        chunk_size: the paper's mini-batch: steps whose gradients are taken at the same weights.
        base_rate: η_base.
        residual: f as above; False is the bare model.
        largest_surprise: length of the longest gradient of one step, both layers of a head together.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int = 64,
        expansion: int = 4,
        chunk_size: int = 16,
        base_rate: float = 0.1,
        residual: bool = True,
        largest_surprise: float = 100.0,
    ) -> None:
        check_sizes(expansion=expansion)
        hidden = [expansion * key_size]
        super().__init__(
            input_size,
            output_size,
            heads,
            key_size,
            hidden,
            chunk_size,
            base_rate,
            residual,
            largest_surprise,
        )
        self.expansion = expansion
