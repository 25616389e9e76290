"""The store in RAM: for experiments, for tests, and the model that durable stores are compared with."""

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mnemos.retention.policy import Policy, Usage, order_of_departure
from mnemos.stores import arguments
from mnemos.stores.base import (
    DEFAULT_NAMESPACE,
    Hits,
    Metric,
    Records,
    Schema,
    Store,
    StoreClosedError,
    StoreError,
)
from mnemos.stores.embedded import EmbeddedStore
from mnemos.stores.exact import WORST, nearest, unpack_bits
from mnemos.stores.filters import Filter, parse, parse_read


@dataclass
class _Record:
    key: Tensor
    value: Tensor
    metadata: dict[str, Any] | None
    namespace: str
    written_at: float
    last_read: float
    times_read: int
    strength: float


class _Stack(NamedTuple):
    """The records of a namespace as tensors, for searching."""

    ids: Int[Tensor, " records"]
    keys: Shaped[Tensor, "records keys"]  # in float64, or uint8 for bits


@final
class RamStore(Store):
    """Records in this process's memory; they end with it, unless `snapshot` writes them to a path.

    It keeps every law of a store but durability, by the plainest means: a dictionary of records, and a
    search that scores in float64.

    Args:
        metric: how keys are compared (default: inner product, and Hamming distance for bits).
        fingerprint: names the model whose keys these are.
        read_only: refuse to write.
        clock: the time in seconds.
    """

    schema: Schema | None = None

    def __init__(
        self,
        *,
        metric: Metric | None = None,
        fingerprint: str | None = None,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.fingerprint = fingerprint
        self._metric = metric
        self._read_only = read_only
        self._clock = clock
        self._records: dict[int, _Record] = {}  # in order of id
        self._next_id = 0
        self._revision = 0
        self._stacks: dict[str, _Stack] = {}  # made when read, dropped when written
        self._indexed: set[str] = set()
        self._closed = False

    @property
    def metric(self) -> Metric | None:
        return self.schema.metric if self.schema else self._metric

    @property
    def revision(self) -> int:
        self._check_open()
        return self._revision

    def write(
        self,
        keys: Shaped[Tensor, "records keys"],
        values: Shaped[Tensor, "records *value"],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> Int[Tensor, " records"]:
        self._check_writable()
        namespace = arguments.prepare_namespace(namespace)
        self.schema, batch = arguments.prepare_write(
            self.schema, self._metric, keys, values, metadata, strength
        )
        now = self._clock()
        ids = range(self._next_id, self._next_id + len(batch.keys))
        for row, id_ in enumerate(ids):
            self._records[id_] = _Record(
                batch.keys[row].clone(),
                batch.values[row].clone(),
                _parsed(batch.metadata[row]),
                namespace,
                written_at=now,
                last_read=now,
                times_read=0,
                strength=float(batch.strength[row]),
            )
        self._next_id = ids.stop
        self._revision += 1
        self._stacks.pop(namespace, None)
        return torch.tensor(ids, dtype=torch.int64)

    def read(
        self,
        queries: Shaped[Tensor, "queries keys"],
        k: int = 32,
        *,
        where: Mapping[str, Any] | None = None,
        approximate: bool = False,
        touch: bool = True,
    ) -> Hits:
        self._check_open()
        arguments.check_k(k)
        namespace, rest = parse_read(where, DEFAULT_NAMESPACE)
        if self.schema is None:
            return _no_hits(len(queries), k)
        queries = arguments.prepare_queries(self.schema, queries)
        if approximate and namespace not in self._indexed:
            raise StoreError(f"namespace {namespace!r} has no index; call build_index({namespace!r}) first")
        stack = self._fitting(namespace, rest)
        hits = self._hits(*nearest(self.schema.metric, queries, stack.keys, stack.ids, k), k)
        if touch and not self._read_only:
            self._touch(hits.ids)
        return hits

    def gather(self, ids: Int[Tensor, " records"]) -> tuple[Tensor, Tensor]:
        records = self._find(ids)
        return self._keys(records), self._values(records)

    def get(self, ids: Int[Tensor, " records"]) -> Records:
        records = self._find(ids)
        return Records(
            arguments.prepare_ids(ids).clone(),
            self._keys(records),
            self._values(records),
            [copy.deepcopy(record.metadata) for record in records],
            [record.namespace for record in records],
            self._usage(arguments.prepare_ids(ids).tolist()),
        )

    def ids(self, where: Mapping[str, Any] | None = None) -> Int[Tensor, " records"]:
        return torch.tensor(self._where(where), dtype=torch.int64)

    def count(self, where: Mapping[str, Any] | None = None) -> int:
        return len(self._where(where))

    def namespaces(self) -> list[str]:
        self._check_open()
        return sorted({record.namespace for record in self._records.values()})

    def update(
        self,
        ids: Int[Tensor, " records"],
        *,
        keys: Shaped[Tensor, "records keys"] | None = None,
        values: Shaped[Tensor, "records *value"] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        strength: Float[Tensor, " records"] | None = None,
    ) -> None:
        self._check_writable()
        ids = arguments.prepare_ids(ids, unique=True)
        records = self._find(ids)
        if self.schema is None:
            return  # nothing was ever written, so ids is empty
        changes = arguments.prepare_update(self.schema, len(ids), keys, values, metadata, strength)
        self._revision += 1
        for row, record in enumerate(records):
            if changes.keys is not None:
                record.key = changes.keys[row].clone()
            if changes.values is not None:
                record.value = changes.values[row].clone()
            if changes.metadata is not None:
                record.metadata = _parsed(changes.metadata[row])
            if changes.strength is not None:
                record.strength = float(changes.strength[row])
            self._stacks.pop(record.namespace, None)

    def delete(
        self, ids: Int[Tensor, " records"] | None = None, *, where: Mapping[str, Any] | None = None
    ) -> int:
        self._check_writable()
        if (ids is None) == (where is None):
            raise ValueError("delete needs either ids or where, and not both (where={} is every record)")
        if ids is None:
            chosen = self._where(where)
        else:
            chosen = arguments.prepare_ids(ids, unique=True).tolist()
            self._find(ids)
        self._remove(chosen)
        return len(chosen)

    def evict(
        self, policy: Policy, keep: int, *, where: Mapping[str, Any] | None = None
    ) -> Int[Tensor, " records"]:
        self._check_writable()
        arguments.check_keep(keep)
        chosen = self._where(where)
        keys = torch.empty(len(chosen), 0)
        if policy.reads_keys and self.schema is not None:
            keys = self._keys([self._records[id_] for id_ in chosen])
            keys = unpack_bits(keys) if self.schema.key_dtype == "bits" else keys
        order = order_of_departure(policy, self._usage(chosen), keys, self._clock())
        leaving = torch.tensor(chosen, dtype=torch.int64)[order[: max(0, len(chosen) - keep)]].sort().values
        self._remove(leaving.tolist())
        return leaving

    def build_index(self, namespace: str = DEFAULT_NAMESPACE) -> None:
        """An approximate read then answers exactly, as every read of this store does."""
        self._check_writable()
        self._indexed.add(arguments.prepare_namespace(namespace))

    def compact(self) -> int:
        self._check_writable()
        return 0

    def verify(self) -> list[str]:
        self._check_open()
        return []

    def snapshot(self, path: str | Path) -> None:
        """Writes an embedded store, with the same ids, times and counts of reads."""
        self._check_open()
        if Path(path).exists():
            raise FileExistsError(f"{path} exists; a snapshot makes a new folder")
        with EmbeddedStore(path, metric=self._metric, fingerprint=self.fingerprint) as copied:
            if self.schema is not None:
                copied.adopt(self.get(self.ids()), self._next_id)

    def stats(self) -> dict[str, Any]:
        return {
            "records": self.count(),
            "namespaces": {name: self.count({"namespace": name}) for name in self.namespaces()},
            "bytes": sum(record.key.nbytes + record.value.nbytes for record in self._records.values()),
            "format": None,
            "schema": asdict(self.schema) if self.schema else None,
            "fingerprint": self.fingerprint,
        }

    def flush(self) -> None:
        self._check_open()

    def close(self) -> None:
        self._closed = True
        self._records.clear()
        self._stacks.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store has been closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            raise StoreError("the store was opened with read_only=True")

    def _find(self, ids: Int[Tensor, " records"]) -> list[_Record]:
        self._check_open()
        wanted = arguments.prepare_ids(ids).tolist()
        if missing := [id_ for id_ in wanted if id_ not in self._records]:
            raise arguments.missing_ids(missing)
        return [self._records[id_] for id_ in wanted]

    def _where(self, where: Mapping[str, Any] | None) -> list[int]:
        self._check_open()
        chosen = parse(where)
        return [
            id_ for id_, record in self._records.items() if chosen.fits(record.namespace, record.metadata)
        ]

    def _remove(self, ids: list[int]) -> None:
        self._revision += 1
        for id_ in ids:
            self._stacks.pop(self._records.pop(id_).namespace, None)

    def _keys(self, records: list[_Record]) -> Tensor:
        if records:
            return torch.stack([record.key for record in records])
        if self.schema is None:
            return torch.empty(0, 0)
        return torch.empty(0, self.schema.key_size, dtype=arguments.KEY_DTYPES[self.schema.key_dtype])

    def _values(self, records: list[_Record]) -> Tensor:
        if records:
            return torch.stack([record.value for record in records])
        if self.schema is None:
            return torch.empty(0)
        return torch.empty(0, *self.schema.value_shape, dtype=getattr(torch, self.schema.value_dtype))

    def _usage(self, ids: list[int]) -> Usage:
        records = [self._records[id_] for id_ in ids]
        return Usage(
            torch.tensor(ids, dtype=torch.int64),
            torch.tensor([record.written_at for record in records], dtype=torch.float64),
            torch.tensor([record.last_read for record in records], dtype=torch.float64),
            torch.tensor([record.times_read for record in records], dtype=torch.int64),
            torch.tensor([record.strength for record in records], dtype=torch.float64),
        )

    def _fitting(self, namespace: str, rest: Filter) -> _Stack:
        if namespace not in self._stacks:
            ids = [id_ for id_, record in self._records.items() if record.namespace == namespace]
            keys = self._keys([self._records[id_] for id_ in ids])
            keys = keys.double() if keys.is_floating_point() else keys
            self._stacks[namespace] = _Stack(torch.tensor(ids, dtype=torch.int64), keys)
        stack = self._stacks[namespace]
        if not rest.conditions:
            return stack
        fits = [rest.fits(namespace, self._records[id_].metadata) for id_ in stack.ids.tolist()]
        return _Stack(*(part[torch.tensor(fits, dtype=torch.bool)] for part in stack))

    def _hits(self, found: Tensor, scores: Tensor, k: int) -> Hits:
        """Fills up to `k` what the search found."""
        assert self.schema is not None
        missing = k - found.shape[1]
        ids = torch.nn.functional.pad(found, (0, missing), value=-1)
        scores = torch.nn.functional.pad(scores.float(), (0, missing), value=WORST[self.schema.metric])
        dtype = getattr(torch, self.schema.value_dtype)
        values = torch.zeros(*ids.shape, *self.schema.value_shape, dtype=dtype)
        values[ids >= 0] = self._values([self._records[id_] for id_ in found.flatten().tolist()])
        return Hits(ids, scores, values)

    def _touch(self, ids: Int[Tensor, "queries found"]) -> None:
        now = self._clock()
        for id_ in ids[ids >= 0].tolist():
            self._records[id_].last_read = now
            self._records[id_].times_read += 1


def _no_hits(queries: int, k: int) -> Hits:
    """The answer of a store that has no schema yet."""
    return Hits(
        torch.full((queries, k), -1, dtype=torch.int64),
        torch.full((queries, k), -torch.inf),
        torch.zeros(queries, k),
    )


def _parsed(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)
