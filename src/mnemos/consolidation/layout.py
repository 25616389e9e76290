"""Tensors of several types side by side in one row of bytes, which is what a store keeps as a value."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor


class Field(NamedTuple):
    """What one part of an experience looks like."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Layout:
    """Which bytes of a row are what.

    Args:
        fields: by name; in the order of the widths of their numbers, widest first, each begins where its
            numbers may begin.
    """

    def __init__(self, fields: Mapping[str, Field]) -> None:
        if not fields:
            raise ValueError("an experience needs at least one field")
        self.fields = dict(sorted(fields.items(), key=lambda pair: (-pair[1].dtype.itemsize, pair[0])))
        self._starts, end = {}, 0
        for name, field in self.fields.items():
            self._starts[name] = end
            end += field.size
        widest = next(iter(self.fields.values())).dtype.itemsize
        self.size = end + -end % widest  # so that the next row begins well, too

    @classmethod
    def of(cls, experiences: Mapping[str, Tensor]) -> "Layout":
        return cls({name: Field(one.dtype, tuple(one.shape[1:])) for name, one in experiences.items()})

    def pack(self, experiences: Mapping[str, Tensor]) -> UInt8[Tensor, "rows bytes"]:
        """The experiences as rows of bytes.

        Raises:
            ValueError: fields, types, shapes or numbers of rows that do not fit; floats of another width are
                not converted.
        """
        if experiences.keys() != self.fields.keys():
            raise ValueError(f"experiences have the fields {sorted(self.fields)}, not {sorted(experiences)}")
        rows = {len(one) for one in experiences.values()}
        if len(rows) != 1:
            raise ValueError(f"fields must have as many rows as each other, not {sorted(rows)}")
        packed = torch.zeros(rows.pop(), self.size, dtype=torch.uint8)
        for name, field in self.fields.items():
            given = experiences[name].detach().cpu()
            if (given.dtype, tuple(given.shape[1:])) != field:
                raise ValueError(
                    f"{name} must be {field.dtype} of shape (rows, *{field.shape}), "
                    f"not {given.dtype} of shape {tuple(given.shape)}"
                )
            flat = given.reshape(len(given), math.prod(field.shape)).contiguous()
            start = self._starts[name]
            packed[:, start : start + field.size] = flat.view(torch.uint8)
        return packed

    def unpack(self, packed: UInt8[Tensor, "rows bytes"]) -> dict[str, Tensor]:
        """The experiences again; views of the bytes where they lie as they were packed."""
        return {name: self.column(packed, name) for name in self.fields}

    def column(self, packed: UInt8[Tensor, "rows bytes"], name: str) -> Tensor:
        """One field."""
        field, start, width = self.fields[name], self._starts[name], self.fields[name].dtype.itemsize
        if packed.shape[1] % width or packed.storage_offset() % width:
            packed, start = packed[:, start : start + field.size].contiguous(), 0
        part = packed.view(field.dtype).narrow(1, start // width, field.size // width)
        return part if len(field.shape) == 1 else part.view(len(packed), *field.shape)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` makes a layout of again."""
        return {
            name: [str(one.dtype).removeprefix("torch."), *one.shape] for name, one in self.fields.items()
        }

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> "Layout":
        return cls({name: Field(getattr(torch, one[0]), tuple(one[1:])) for name, one in described.items()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(tuple(self.fields.items()))
