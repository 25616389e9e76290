"""Continuous Hopfield networks as layers: association, pooling, and lookup of trained patterns.

Ramsauer et al. 2021, section 4. What is stored and what asks can each come from outside or be trained; the
update between them is always the same, `mnemos.ops.hopfield.retrieve`. None of these layers has a state: what
they store lasts for one call, or is learned. `mnemos.ModernHopfield` is the memory that is written.
"""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mnemos.memories.base import check_sizes
from mnemos.ops.hopfield import retrieve


@final
class HopfieldAssociation(nn.Module):
    """Several heads of a continuous Hopfield network between two sequences: the paper's layer `Hopfield`.

    Ramsauer et al. 2021, equation (10): Z = softmax(β R W_Q (Y W_K)ᵀ) Y W_K W_V, where W_K W_V is one matrix
    here. With one step it is multi-head attention.

    Args:
        query_size: width of what asks, R, and of the answer.
        stored_size: width of what is stored, Y; None is `query_size`.
        heads: independent networks.
        key_size: width of a head, in which patterns are compared; None is `query_size // heads`.
        inverse_temperature: β; None is 1 / sqrt(key_size).
        steps: updates. Each costs the same.
    """

    def __init__(
        self,
        query_size: int,
        stored_size: int | None = None,
        *,
        heads: int = 1,
        key_size: int | None = None,
        inverse_temperature: float | None = None,
        steps: int = 1,
    ) -> None:
        super().__init__()
        stored_size = query_size if stored_size is None else stored_size
        key_size = query_size // max(heads, 1) if key_size is None else key_size
        check_sizes(
            query_size=query_size,
            stored_size=stored_size,
            heads=heads,
            key_size=key_size,
            steps=steps,
        )
        if inverse_temperature is None:
            inverse_temperature = key_size**-0.5
        if not inverse_temperature > 0:
            raise ValueError(f"inverse_temperature must be above 0, not {inverse_temperature}")
        self.heads, self.inverse_temperature, self.steps = heads, inverse_temperature, steps
        self.query = nn.Linear(query_size, heads * key_size, bias=False)
        self.key = nn.Linear(stored_size, heads * key_size, bias=False)
        self.value = nn.Linear(stored_size, heads * key_size, bias=False)
        self.output = nn.Linear(heads * key_size, query_size, bias=False)

    def forward(
        self,
        queries: Float[Tensor, "batch time input"],
        stored: Float[Tensor, "batch slots width"],
        *,
        mask: Bool[Tensor, "batch slots"] | None = None,
    ) -> Float[Tensor, "batch time input"]:
        """What each query finds among what is stored.

        Args:
            mask: false where a stored pattern is padding, which may hold anything. A row without any pattern
                answers zeros.
        """
        if mask is not None:
            stored = stored.masked_fill(~mask.unsqueeze(-1), 0)
        found = retrieve(
            self._heads(self.query(queries)),
            self._heads(self.key(stored)),
            self._heads(self.value(stored)),
            self.inverse_temperature,
            self.steps,
            None if mask is None else mask[:, None, None].expand(-1, self.heads, -1, -1),
        )
        return self.output(found.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, time, heads * width) as (batch, heads, time, width)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


@final
class HopfieldPooling(nn.Module):
    """A set of any size to a fixed number of vectors: trained queries ask what is stored in the set.

    Ramsauer et al. 2021, section 4, `HopfieldPooling`. It finds one telling pattern among thousands, as
    multiple instance learning asks for. The order of the set makes no difference.

    Args:
        association: the network between the queries and the set; its queries are what is trained here.
        queries: how many.
        query_size: their width, which is that of `association`'s queries.
    """

    def __init__(self, association: HopfieldAssociation, query_size: int, queries: int = 1) -> None:
        super().__init__()
        self.association = association
        self.queries = nn.Parameter(torch.randn(queries, query_size) / query_size**0.5)

    def forward(
        self, inputs: Float[Tensor, "batch time input"], *, mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch queries width"]:
        """One vector for each query and row, zeros where `mask` leaves nothing of the row."""
        return self.association(self.queries.expand(inputs.shape[0], -1, -1), inputs, mask=mask)


@final
class HopfieldLookup(nn.Module):
    """Every input asks a set of trained patterns: the paper's `HopfieldLayer`.

    Ramsauer et al. 2021, section 4. Patterns that are set to a training set's inputs, and their values to its
    targets, make it a nearest-neighbour classifier from which training goes on.

    Args:
        input_size: width of inputs and patterns.
        output_size: width of values.
        slots: trained patterns.
        inverse_temperature: β; None is 1 / sqrt(input_size).
        steps: updates. Each costs the same.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        slots: int,
        *,
        inverse_temperature: float | None = None,
        steps: int = 1,
    ) -> None:
        super().__init__()
        check_sizes(input_size=input_size, output_size=output_size, slots=slots, steps=steps)
        self.inverse_temperature = input_size**-0.5 if inverse_temperature is None else inverse_temperature
        if not self.inverse_temperature > 0:
            raise ValueError(f"inverse_temperature must be above 0, not {inverse_temperature}")
        self.steps = steps
        self.keys = nn.Parameter(torch.randn(slots, input_size))
        self.values = nn.Parameter(torch.randn(slots, output_size) / slots**0.5)

    def forward(self, inputs: Float[Tensor, "batch time input"]) -> Float[Tensor, "batch time output"]:
        # All rows ask the same patterns, so they are one long row.
        found = retrieve(inputs.flatten(0, 1), self.keys, self.values, self.inverse_temperature, self.steps)
        return found.unflatten(0, inputs.shape[:2])
