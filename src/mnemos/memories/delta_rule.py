"""The delta rule as a layer: DeltaNet."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.fast_weights import FastWeights


@final
class DeltaRule(FastWeights):
    """One matrix per head that is taught pair by pair, each time only what it did not already know.

    Schlag, Irie & Schmidhuber 2021, "Linear Transformers Are Secretly Fast Weight Programmers", in the
    parallel form of Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence
    Length". A key that comes again has its value corrected; what lies under other keys suffers as far as they
    are not orthogonal to it.

    As in Yang et al., keys and queries are linear maps of the input through SiLU, scaled to length one, so
    that after strength 1 a key answers exactly what was written and a key of zeros writes nothing; the
    strength is a sigmoid. Schlag et al.'s own layer is `feature_map=dpfp(3)`: features that are fewer alike
    hold more, and sum to one. See `FastWeights` for arguments, reading and writing.
    """

    def add_gates(self, channels: int) -> None:
        self.strength = nn.Linear(self.input_size, self.heads)  # β before the sigmoid

    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """β in (0, 1) for each head: 1 replaces what the key answered, 0.5 moves it half way."""
        return {"strength": self.strength(inputs).sigmoid()}
