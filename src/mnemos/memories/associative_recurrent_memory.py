"""A matrix of associations in every layer, written when a segment ends: ARMT."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.base import check_sizes
from mnemos.memories.segment_recurrence import SegmentRecurrence
from mnemos.ops.corrected_association import Association, corrected, recalled
from mnemos.ops.delta_rule import unit
from mnemos.ops.features import deterministic_parameter_free

SHIFTS = 3  # ν of DPFP-ν


class Associations(NamedTuple):
    """What each layer has been told; never below float32, zeros at first."""

    by_layer: tuple[Association, ...]


class AssociativeLayer(nn.Module):
    """How one layer asks its associations and what it tells them."""

    def __init__(self, width: int, key_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, key_size, bias=False)  # W_Q
        self.key = nn.Linear(width, key_size, bias=False)  # W_K
        self.value = nn.Linear(width, width, bias=False)  # W_V
        self.strength = nn.Linear(width, 1)  # β before the sigmoid

    def recalled(self, known: Association, hidden: Float[Tensor, "batch time width"]) -> Tensor:
        """What the layer's inputs are answered."""
        queries = self.query(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return recalled(known, _features(queries.to(known.matrix))).to(hidden.dtype)

    def told(self, known: Association, written: Float[Tensor, "batch slots width"]) -> Association:
        """The associations after a segment that ended in these memory tokens."""
        keys, values, strength = self.key(written), self.value(written), self.strength(written)
        with torch.autocast(written.device.type, enabled=False):
            keys, values, strength = (x.to(known.matrix) for x in (keys, values, strength))
            return corrected(known, _features(keys), values, strength.sigmoid())


@final
class AssociativeRecurrentMemory(SegmentRecurrence):
    """A transformer over segments whose every layer adds what it is told there to a matrix.

    Rodkin et al. 2024, "Associative Recurrent Memory Transformer" (ARMT). A segment ends with memory tokens,
    always the same learned ones. What a layer makes of each is a key, a value and a strength, and written
    into the layer's own matrix; from the next segment on every token of every segment, memory tokens too,
    asks the matrix before it enters the layer, and is added the answer. For both see
    `mnemos.ops.corrected_association`, and `SegmentRecurrence` for the rest.

    As in the authors' code, keys and queries are scaled to length one after their features (DPFP-3). The
    gradient also goes through γ, which their code takes as given.

    Args:
        input_size: width of inputs, outputs and memory tokens, a multiple of 2 x heads.
        segment_size: real steps of a segment.
        slots: memory tokens, each of which writes one association a layer and segment.
        key_size: width of keys before their features, of which there are 6 x key_size; a layer holds about as
            many associations.
        layers: of attention and feed-forward network, each with a matrix.
        heads: attention heads. There is one matrix for all.
        feed_forward: hidden width of the feed-forward networks; None is twice the input's.
    """

    def __init__(
        self,
        input_size: int,
        *,
        segment_size: int,
        slots: int,
        key_size: int = 64,
        layers: int = 2,
        heads: int = 1,
        feed_forward: int | None = None,
    ) -> None:
        super().__init__(
            input_size,
            segment_size=segment_size,
            slots=slots,
            layers=layers,
            heads=heads,
            feed_forward=feed_forward,
        )
        check_sizes(slots=slots, key_size=key_size)
        self.key_size = key_size
        self.writers = nn.Parameter(torch.randn(slots, input_size))
        self.associative = nn.ModuleList(AssociativeLayer(input_size, key_size) for _ in range(layers))

    def nothing(self, batch_size: int) -> Associations:
        dtype = torch.promote_types(self._origin.dtype, torch.float32)
        features = 2 * SHIFTS * self.key_size
        matrix = self._origin.new_zeros(batch_size, self.input_size, features, dtype=dtype)
        return Associations(
            tuple(Association(matrix.clone(), matrix[:, 0].clone()) for _ in range(self.layers))
        )

    def tokens(self, memory: Associations) -> tuple[Tensor, Tensor]:
        tokens = self.writers.expand(len(memory.by_layer[0].total), -1, -1)
        return tokens[:, :0], tokens

    def recall(
        self, memory: Associations, layer: int, hidden: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        return hidden + self._of(layer).recalled(memory.by_layer[layer], hidden)

    def remember(
        self, memory: Associations, written: Sequence[Float[Tensor, "batch slots width"]]
    ) -> Associations:
        pairs = enumerate(zip(memory.by_layer, written, strict=False))
        return Associations(tuple(self._of(layer).told(known, tokens) for layer, (known, tokens) in pairs))

    def _of(self, layer: int) -> AssociativeLayer:
        found = self.associative[layer]
        assert isinstance(found, AssociativeLayer)
        return found


def _features(x: Float[Tensor, "batch time keys"]) -> Float[Tensor, "batch time features"]:
    return unit(deterministic_parameter_free(x, SHIFTS))
