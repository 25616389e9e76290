"""What memories have in common that are independent heads between linear maps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.base import AddressableMemory, check_sizes


class MultiHeadMemory(AddressableMemory):
    """Heads that each ask, write and answer by themselves; linear maps make what they are given of the input,
    and the output of what all of them answer.

    In `write` and `read`, a key is the keys of all heads side by side (heads * key_size), and so is a value
    (heads * value_size).

    Args:
        output_size: width of the output; None means `input_size`.
        sizes: further arguments that must be at least 1, by name.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear

    def __init__(
        self,
        input_size: int,
        output_size: int | None,
        *,
        heads: int,
        key_size: int,
        value_size: int,
        **sizes: int,
    ) -> None:
        super().__init__()
        output_size = input_size if output_size is None else output_size
        check_sizes(
            input_size=input_size,
            output_size=output_size,
            heads=heads,
            key_size=key_size,
            value_size=value_size,
            **sizes,
        )
        self.input_size, self.output_size = input_size, output_size
        self.heads, self.key_size, self.value_size = heads, key_size, value_size
        self.naive = False

    def add_maps(self) -> None:
        """Adds the maps, of which a subclass makes its queries, keys and values in `project`."""
        self.query = nn.Linear(self.input_size, self.heads * self.key_size, bias=False)
        self.key = nn.Linear(self.input_size, self.heads * self.key_size, bias=False)
        self.value = nn.Linear(self.input_size, self.heads * self.value_size, bias=False)
        self.output = nn.Linear(self.heads * self.value_size, self.output_size, bias=False)

    def emit(self, values: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time output"]:
        return self.output(values.to(self.output.weight.dtype))

    @property
    def dtype(self) -> torch.dtype:
        """Of states, and of what is computed with them: never below float32."""
        return torch.promote_types(self._origin.dtype, torch.float32)

    def zeros(self, batch_size: int, *shape: int) -> Float[Tensor, "batch heads *shape"]:
        """Part of a new state."""
        return self._origin.new_zeros(batch_size, self.heads, *shape, dtype=self.dtype)

    def split(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time heads _width"]:
        """Heads apart."""
        return x.unflatten(-1, (self.heads, -1))

    def gate(
        self, x: Tensor | None, like: Float[Tensor, "batch time heads width"], default: float = 0.0
    ) -> Float[Tensor, "batch time heads"]:
        """A gate for each head, given for all (batch, time) or for each (batch, time, heads)."""
        if x is None:
            return like.new_full(like.shape[:3], default)
        return (x if x.dim() == 3 else x.unsqueeze(-1)).to(like).expand(like.shape[:3])
