"""A copy in RAM of one namespace of a store, kept as new as the store is."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mnemos.consolidation.layout import Layout
from mnemos.consolidation.selection import Traces
from mnemos.retention.policy import Policy
from mnemos.stores.base import Store

CLASS = "class"  # the metadata by which experiences of a class are found
LAYOUT = "layout"  # the namespace beside, whose one record says what a row of bytes means
PART = 4096  # records that are read at a time
_versions = itertools.count()  # of all columns: no two share one


class Replayed(NamedTuple):
    """Experiences as they were written."""

    ids: Int[Tensor, " rows"]
    inputs: Tensor
    targets: Tensor
    others: dict[str, Tensor]  # whatever else was written with them, by name


class Columns:
    """Ids, classes, strengths and values, place by place.

    A place is good for one version. What is written comes last; what goes leaves its place to the last.
    """

    def __init__(self, store: Store, namespace: str) -> None:
        self.store, self.namespace = store, namespace
        self.layout: Layout | None = None
        self.version = next(_versions)
        self._revision = -1
        self._count = 0
        self._ids = torch.empty(0, dtype=torch.int64)
        self._groups = torch.empty(0, dtype=torch.int64)
        self._strength = torch.empty(0, dtype=torch.float64)
        self._values = torch.empty(0, 0, dtype=torch.uint8)
        self._keys: tuple[int, Tensor] = -1, torch.empty(0, 0)  # with the version that they are of
        self._sorted: tuple[int, Tensor, Tensor] = -1, self._ids, self._ids
        self.refresh()

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Int[Tensor, " experiences"]:
        return self._ids[: self._count]

    @property
    def groups(self) -> Int[Tensor, " experiences"]:
        return self._groups[: self._count]

    @property
    def strength(self) -> Float[Tensor, " experiences"]:
        return self._strength[: self._count]

    def refresh(self) -> None:
        """Reads everything again if anybody else has changed the store."""
        revision = self.store.revision
        if revision == self._revision:
            return
        if self.layout is None:
            self.layout = self._read_layout()
        order = self.ids.clone()
        self._count, self.version = 0, next(_versions)
        for ids in self.store.ids({"namespace": self.namespace}).split(PART):
            records = self.store.get(ids)
            groups = torch.tensor([(one or {}).get(CLASS, -1) for one in records.metadata])
            self._append(ids, groups, records.usage.strength, records.values)
        self._revision = revision
        self.arrange(order)

    def _read_layout(self) -> Layout | None:
        beside = self.store.ids({"namespace": f"{self.namespace}/{LAYOUT}"})
        if len(beside):
            described = self.store.get(beside[-1:]).metadata[0]
            assert described is not None
            return Layout.from_json(described)
        if self.store.count({"namespace": self.namespace}):
            raise ValueError(f"the namespace {self.namespace!r} of the store holds records of another kind")
        return None

    def arrange(self, ids: Int[Tensor, " ids"]) -> None:
        """Puts experiences in the order of these ids, those that are there; all others come after them."""
        rank = {id_: number for number, id_ in enumerate(ids.tolist())}
        ranks = torch.tensor([rank.get(id_, len(rank)) for id_ in self.ids.tolist()], dtype=torch.int64)
        order = ranks.argsort(stable=True)
        for column in (self._ids, self._groups, self._strength, self._values):
            column[: self._count] = column[: self._count][order]
        self.version = next(_versions)

    def write(
        self,
        layout: Layout,
        keys: Float[Tensor, "rows keys"],
        values: UInt8[Tensor, "rows bytes"],
        groups: Int[Tensor, " rows"],
        strength: Float[Tensor, " rows"],
        metadata: Sequence[Mapping[str, Any] | None],
    ) -> Int[Tensor, " rows"]:
        """Writes to the store, and then here."""
        if not len(values):
            return torch.empty(0, dtype=torch.int64)
        if self.layout is None:
            beside, name = keys[:1].new_zeros(1, keys.shape[1]), f"{self.namespace}/{LAYOUT}"
            self.store.write(beside, values[:1] * 0, namespace=name, metadata=[layout.to_json()])
            self.layout = layout
            self._revision += 1
        ids = self.store.write(keys, values, namespace=self.namespace, metadata=metadata, strength=strength)
        self._append(ids, groups, strength, values)
        self._own(1)
        return ids

    def evict(self, policy: Policy, keep: int, where: Mapping[str, Any]) -> Int[Tensor, " gone"]:
        """Evicts from the store, and then here."""
        gone = self.store.evict(policy, keep, where={**where, "namespace": self.namespace})
        for place in self.places(gone).sort(descending=True).values.tolist():
            self._count -= 1
            for column in (self._ids, self._groups, self._strength, self._values):
                column[place] = column[self._count]
        self._own(1)
        return gone

    def _own(self, changes: int) -> None:
        """A change of ours: if the revision shows another's as well, everything is read again."""
        self.version = next(_versions)
        revision = self.store.revision
        self._revision = revision if revision == self._revision + changes else -1

    def _append(self, ids: Tensor, groups: Tensor, strength: Tensor, values: Tensor) -> None:
        end = self._count + len(ids)
        for name, new in (("_ids", ids), ("_groups", groups), ("_strength", strength), ("_values", values)):
            column = getattr(self, name)
            if end > len(column) or column.shape[1:] != new.shape[1:]:
                larger = new.new_empty(max(end, 2 * len(column)), *new.shape[1:]).to(column.dtype)
                if self._count:
                    larger[: self._count] = column[: self._count]
                setattr(self, name, larger)
            getattr(self, name)[self._count : end] = new
        self._count = end

    def places(self, ids: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """Where experiences are.

        Raises:
            KeyError: one that is not there.
        """
        if self._sorted[0] != self.version:
            self._sorted = self.version, *self.ids.sort()
        _, ascending, order = self._sorted
        found = torch.searchsorted(ascending, ids).clamp(max=max(0, self._count - 1))
        missing = ids if not self._count else ids[ascending[found] != ids]
        if len(missing):
            raise KeyError(f"no experience has the id {missing.tolist()[:10]}")
        return order[found]

    def take(self, places: Int[Tensor, " rows"]) -> Replayed:
        """Copies of the experiences there."""
        if self.layout is None:
            raise ValueError("no experience was ever written, so what one looks like is not known")
        fields = self.layout.unpack(self._values.index_select(0, places))
        return Replayed(
            self._ids.index_select(0, places), fields.pop("inputs"), fields.pop("targets"), fields
        )

    def traces(self, keys: bool) -> Traces:
        """What is known of every experience, place by place."""
        if not keys:
            return Traces(self.ids, self.groups, self.strength, torch.empty(self._count, 0))
        if self._keys[0] != self.version:
            parts = [self.store.gather(ids)[0].float() for ids in self.ids.split(PART)]
            self._keys = self.version, torch.cat(parts) if parts else torch.empty(0, 0)
        return Traces(self.ids, self.groups, self.strength, self._keys[1])
