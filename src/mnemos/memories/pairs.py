"""Memories of pairs that are given as they are to be stored, without projections."""

from jaxtyping import Float
from torch import Tensor

from mnemos.memories.base import AddressableMemory, Projection, check_sizes


class PairMemory(AddressableMemory):
    """A memory whose input is key and value at once, or the two side by side.

    Args:
        key_size: width of keys and queries.
        value_size: width of values; None means that the input is its own value.
    """

    key_size: int
    value_size: int | None

    def __init__(self, key_size: int, value_size: int | None) -> None:
        super().__init__()
        check_sizes(key_size=key_size, value_size=key_size if value_size is None else value_size)
        self.key_size, self.value_size = key_size, value_size
        self.input_size = key_size if value_size is None else key_size + value_size
        self.output_size = key_size if value_size is None else value_size

    def project(self, inputs: Float[Tensor, "batch time input"]) -> Projection:
        """The input as key and value, or its two parts."""
        keys, values = inputs[..., : self.key_size], inputs[..., -self.output_size :]
        return Projection(keys, keys, values)
