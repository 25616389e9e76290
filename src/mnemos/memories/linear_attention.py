"""Linear attention, and the fast weights of 1992."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mnemos.memories.base import Reading
from mnemos.memories.fast_weights import Change, FastWeights, FastWeightState, FeatureMap, positive


@final
class LinearAttention(FastWeights):
    """Attention without its softmax, so that all of the past is one sum of outer products a head.

    Katharopoulos et al. 2020, "Transformers are RNNs": y = Σ_i v_i (φ(k_i) · φ(q)) / Σ_i (φ(k_i) · φ(q)), the
    sums over everything written. Nothing is ever corrected or forgotten: with d features a head, more than
    about d different keys answer mixtures. An empty memory answers zero.

    Schmidhuber 1992, "Learning to Control Fast-Weight Memories", is `feature_map=logistic(),
    normalised=False`: its slow network gives FROM and TO, and the fast weights change by TO ⊗ σ(FROM).

    See `FastWeights` for reading and writing; a pair of strength s counts s times.

    Args:
        output_size: width of the output; None means `input_size`.
        heads: independent matrices.
        key_size: width of a head's keys.
        value_size: width of a head's values.
        feature_map: φ: `positive()`, which None means, or another; if normalised, one that is never below 0.
        normalised: whether the answer is divided by the sum of what its query matched.
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
        normalised: bool = True,
        chunk_size: int = 64,
    ) -> None:
        super().__init__(
            input_size,
            output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            feature_map=feature_map,
            chunk_size=chunk_size,
        )
        self.normalised = normalised

    def add_gates(self, channels: int) -> None:
        """None is learned."""

    @staticmethod
    def default_map() -> FeatureMap:
        return positive()

    def gates(self, inputs: Float[Tensor, "batch time input"]) -> dict[str, Tensor]:
        """Every pair counts once."""
        return {"strength": inputs.new_ones(*inputs.shape[:2], self.heads)}

    def change(
        self,
        keys: Float[Tensor, "batch time heads keys"],
        values: Float[Tensor, "batch time heads width"],
        *,
        strength: Float[Tensor, "batch time heads"] | None = None,
        erased: Float[Tensor, "batch time heads #keys"] | None = None,
        committed: Float[Tensor, "batch time heads #width"] | None = None,
        log_decay: Float[Tensor, "batch time heads #keys"] | None = None,
    ) -> Change:
        if erased is not None:
            raise ValueError("erased must be None: linear attention erases nothing")
        values = values if committed is None else committed * values
        if self.normalised:  # the last row of the matrix is the sum of all keys
            values = functional.pad(values, (0, 1), value=1.0)
        counted = torch.ones_like(keys[..., :1]) if strength is None else strength.unsqueeze(-1)
        return Change(values, counted, None, log_decay)

    def answer(self, read: Float[Tensor, "batch time heads read"]) -> Float[Tensor, "batch time heads width"]:
        if not self.normalised:
            return read
        return read[..., :-1] / _divisor(read[..., -1:])

    def read(self, state: FastWeightState, queries: Float[Tensor, "batch time keys"]) -> Reading:
        """Answers each query; weights are as in `FastWeights.read`, divided as the answer is."""
        reading = super().read(state, queries)
        if not self.normalised:
            return reading
        with torch.autocast(queries.device.type, enabled=False):
            asked = self.split(reading.weights)
            matched = torch.einsum("bhk,bthk->bth", state.weights[:, :, -1], asked).unsqueeze(-1)
            return reading._replace(weights=(asked / _divisor(matched)).flatten(2))

    def _width(self) -> int:
        return self.value_size + self.normalised


def _divisor(matched: Tensor) -> Tensor:
    return matched.clamp_min(1e-6)  # where nothing was written, zero divided by something
