"""What lies in the slots of a parametric memory: values in RAM, or in a store."""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.base import check_sizes
from mnemos.ops.sparse import weighted_rows
from mnemos.stores.trainable import TrainableRows


class Values(nn.Module, ABC):
    """A value for each slot. One object may serve several memories, which then share their values."""

    slots: int
    width: int

    @abstractmethod
    def forward(
        self, slots: Int[Tensor, "*rows found"], weights: Float[Tensor, "*rows found"]
    ) -> Float[Tensor, "*rows width"]:
        """The sum of the values of the slots, each times its weight."""


@final
class ValueTable(Values):
    """Values in RAM, a parameter whose gradient is sparse: only rows that were read have one.

    Train it with `mnemos.sparse_optimizer.SparseOptimizer`, or with torch's SGD or SparseAdam; torch's
    other optimisers and `clip_grad_norm_` refuse sparse gradients.

    Args:
        width: of a value. Values start normal with standard deviation width ** -0.5 (Lample et al. 2019).
    """

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        check_sizes(slots=slots, width=width)
        self.slots, self.width = slots, width
        self.rows = nn.Parameter(torch.empty(slots, width).normal_(std=width**-0.5))

    def forward(
        self, slots: Int[Tensor, "*rows found"], weights: Float[Tensor, "*rows found"]
    ) -> Float[Tensor, "*rows width"]:
        return weighted_rows(self.rows, slots, weights)

    def extra_repr(self) -> str:
        return f"{self.slots}, {self.width}"


@final
class StoredValues(Values):
    """Values in an open store: durable, shared between processes, as many as the disk holds.

        ids = store.write(torch.zeros(slots, 1), torch.randn(slots, width))
        rows = TrainableRows(store, values=adam(1e-2))
        memory = ProductKey(..., values=StoredValues(rows, ids))
        loss(memory(inputs)[0], targets).backward()
        rows.step()  # one transaction: what was learned is durable

    They are not among the module's parameters: the store keeps them. Keys of the records are not used.

    Args:
        rows: of an open store whose values are vectors of floats.
        ids: the record of each slot.
    """

    ids: Tensor

    def __init__(self, rows: TrainableRows, ids: Int[Tensor, " slots"]) -> None:
        super().__init__()
        value = rows.store.get(ids[:1]).values[0]
        if value.dim() != 1 or not value.is_floating_point():
            kind = f"{value.dtype} of shape {tuple(value.shape)}"
            raise ValueError(f"the store's values must be vectors of floats, not {kind}")
        self.rows = rows
        self.slots, self.width = len(ids), len(value)
        self.register_buffer("ids", ids)

    def forward(
        self, slots: Int[Tensor, "*rows found"], weights: Float[Tensor, "*rows found"]
    ) -> Float[Tensor, "*rows width"]:
        read, places = slots.unique(return_inverse=True)
        values = self.rows.gather(self.ids[read].cpu()).to(weights)
        found = slots.shape[-1]
        sums = functional.embedding_bag(
            places.reshape(-1, found), values, per_sample_weights=weights.reshape(-1, found), mode="sum"
        )
        return sums.reshape(*slots.shape[:-1], self.width)

    def extra_repr(self) -> str:
        return f"{self.slots}, {self.width}"
