"""The delta rule as a layer: DeltaNet."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.fast_weights import FastWeights, FeatureMap


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
    hold more, and sum to one. See `FastWeights` for reading and writing.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent matrices.
        key_size: width of a head's keys: with `unit_length`, about how many associations it holds.
        value_size: width of a head's values.
        feature_map: `unit_length()`, which None means, `dpfp(shifts)`, `positive_sum()`, or one of your own.
        chunk_size: steps computed together. A matter of speed only.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int = 64,
        value_size: int = 64,
        feature_map: FeatureMap | None = None,
        chunk_size: int = 32,
    ) -> None:
        super().__init__(input_size, output_size, heads, key_size, value_size, feature_map, chunk_size)
        self.strength = nn.Linear(input_size, heads)  # β before the sigmoid

    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """β in (0, 1) for each head: 1 replaces what the key answered, 0.5 moves it half way."""
        return {"strength": self.strength(inputs).sigmoid()}
