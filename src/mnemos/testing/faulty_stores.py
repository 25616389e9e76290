"""Stores that break their promise on purpose: what finds no fault in them cannot find any."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mnemos.retention.policy import Policy
from mnemos.stores.base import DEFAULT_NAMESPACE, Hits, Metric, Records, Schema, Store


class PassingStore(Store):
    """Passes everything on to another store. What wraps a store derives from it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def schema(self) -> Schema | None:
        return self.store.schema

    @property
    def metric(self) -> Metric | None:
        return self.store.metric

    @property
    def revision(self) -> int:
        return self.store.revision

    def write(
        self,
        keys: Shaped[Tensor, "records keys"],
        values: Shaped[Tensor, "records *value"],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> Int[Tensor, " records"]:
        return self.store.write(keys, values, namespace=namespace, metadata=metadata, strength=strength)

    def read(
        self,
        queries: Shaped[Tensor, "queries keys"],
        k: int = 32,
        *,
        where: Mapping[str, Any] | None = None,
        approximate: bool = False,
        touch: bool = True,
    ) -> Hits:
        return self.store.read(queries, k, where=where, approximate=approximate, touch=touch)

    def gather(self, ids: Int[Tensor, " records"]) -> tuple[Tensor, Tensor]:
        return self.store.gather(ids)

    def get(self, ids: Int[Tensor, " records"]) -> Records:
        return self.store.get(ids)

    def ids(self, where: Mapping[str, Any] | None = None) -> Int[Tensor, " records"]:
        return self.store.ids(where)

    def count(self, where: Mapping[str, Any] | None = None) -> int:
        return self.store.count(where)

    def namespaces(self) -> list[str]:
        return self.store.namespaces()

    def update(
        self,
        ids: Int[Tensor, " records"],
        *,
        keys: Shaped[Tensor, "records keys"] | None = None,
        values: Shaped[Tensor, "records *value"] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> None:
        self.store.update(ids, keys=keys, values=values, metadata=metadata, strength=strength)

    def delete(
        self, ids: Int[Tensor, " records"] | None = None, *, where: Mapping[str, Any] | None = None
    ) -> int:
        return self.store.delete(ids, where=where)

    def evict(
        self, policy: Policy, keep: int, *, where: Mapping[str, Any] | None = None
    ) -> Int[Tensor, " records"]:
        return self.store.evict(policy, keep, where=where)

    def build_index(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        self.store.build_index(namespace)

    def compact(self) -> int:
        return self.store.compact()

    def verify(self) -> list[str]:
        return self.store.verify()

    def snapshot(self, path: str | Path) -> None:
        self.store.snapshot(path)

    def stats(self) -> dict[str, Any]:
        return self.store.stats()

    def flush(self) -> None:
        self.store.flush()

    def close(self) -> None:
        self.store.close()


@final
class EarlyStore(PassingStore):
    """Says that an update is done, and does it with the next call, as a write-behind cache would."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._promised: dict[str, Any] | None = None

    def update(
        self,
        ids: Int[Tensor, " records"],
        *,
        keys: Shaped[Tensor, "records keys"] | None = None,
        values: Shaped[Tensor, "records *value"] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> None:
        self.flush()
        self._promised = {
            "ids": ids,
            "keys": keys,
            "values": values,
            "metadata": metadata,
            "strength": strength,
        }

    def ids(self, where: Mapping[str, Any] | None = None) -> Int[Tensor, " records"]:
        return self.store.ids(where)  # an update changes none

    def write(self, keys: Tensor, values: Tensor, **options: Any) -> Int[Tensor, " records"]:
        self.flush()
        return self.store.write(keys, values, **options)

    def delete(self, ids: Tensor | None = None, **options: Any) -> int:
        self.flush()
        return self.store.delete(ids, **options)

    def evict(self, policy: Policy, keep: int, **options: Any) -> Int[Tensor, " records"]:
        self.flush()
        return self.store.evict(policy, keep, **options)

    def compact(self) -> int:
        self.flush()
        return self.store.compact()

    def snapshot(self, path: str | Path) -> None:
        self.flush()
        self.store.snapshot(path)

    def flush(self) -> None:
        promised, self._promised = self._promised, None
        if promised is not None:
            self.store.update(**promised)
        self.store.flush()

    def close(self) -> None:
        self.flush()
        self.store.close()


@final
class PiecemealStore(PassingStore):
    """Writes a batch in two transactions: first the vectors, then the metadata."""

    def write(
        self,
        keys: Shaped[Tensor, "records keys"],
        values: Shaped[Tensor, "records *value"],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> Int[Tensor, " records"]:
        ids = self.store.write(keys, values, namespace=namespace, strength=strength)
        self.store.update(ids, metadata=metadata or [None] * len(ids))
        return ids
