"""Every law of stores finds the fault that it is there to find."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, settings
from torch import Tensor

from mnemos.retention.policy import Policy, least_often_used
from mnemos.stores.base import Hits, Records, Store
from mnemos.stores.ram import RamStore
from mnemos.testing import store_answer_laws as answers
from mnemos.testing import store_lasting_laws as lasting
from mnemos.testing.faulty_stores import PassingStore
from mnemos.testing.store_history import check_histories

FAULT = (AssertionError, pytest.fail.Exception)


class UndeadStore(PassingStore):
    """Finds deleted records still: the search's own copy is not told."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.copy = RamStore(metric="inner_product")

    def write(self, keys: Tensor, values: Tensor, **options: Any) -> Tensor:
        self.copy.write(keys, values, **options)
        return self.store.write(keys, values, **options)

    def read(self, queries: Tensor, k: int = 32, **options: Any) -> Hits:
        return self.copy.read(queries, k, **options)


class ForgetfulStore(PassingStore):
    """Updates the keys and forgets the metadata that came with another call."""

    def update(self, ids: Tensor, *, metadata: Any = None, **changes: Any) -> None:
        self.store.update(ids, **changes)


class SortingStore(PassingStore):
    """Gives metadata in the order of ids rather than in the order asked."""

    def update(self, ids: Tensor, **changes: Any) -> None:
        self.store.update(ids.sort().values, **changes)


class MixingStore(PassingStore):
    """Takes one namespace for another."""

    def write(self, keys: Tensor, values: Tensor, *, namespace: str = "default", **options: Any) -> Tensor:
        namespace = "default" if namespace == "ada" else namespace
        return self.store.write(keys, values, namespace=namespace, **options)


class RecyclingStore(PassingStore):
    """Starts to count afresh when nothing is left, as SQLite's own row ids do."""

    def delete(self, ids: Any = None, **options: Any) -> int:
        deleted = self.store.delete(ids, **options)
        if not self.store.count():
            self.store = RamStore()
        return deleted


class ShakyStore(PassingStore):
    """Orders equal scores by the highest id."""

    def read(self, queries: Tensor, k: int = 32, **options: Any) -> Hits:
        everything = self.store.read(queries, max(k, self.store.count()), **options)
        best = self.store.schema.metric in ("inner_product", "cosine")
        order = everything.ids.argsort(dim=1, descending=True, stable=True)
        scores = everything.scores.gather(1, order)
        order = order.gather(1, scores.argsort(dim=1, descending=best, stable=True))[:, :k]
        values = everything.values[torch.arange(len(order)).unsqueeze(1), order]
        return Hits(everything.ids.gather(1, order), everything.scores.gather(1, order), values)


class RoundingStore(PassingStore):
    """Takes the nearest by float32 products: |q|² - 2 q·k + |k|² cancels far from the origin."""

    def read(self, queries: Tensor, k: int = 32, **options: Any) -> Hits:
        hits = self.store.read(queries, k, **options)
        ids = self.store.ids()
        keys = self.store.gather(ids)[0].float()
        if self.store.schema.metric != "euclidean" or not len(ids):
            return hits
        products = keys.square().sum(1) - 2 * queries.float() @ keys.T
        order = products.sort(dim=1, stable=True).indices[:, :k]
        return hits._replace(ids=ids[order])


class HastyStore(PassingStore):
    """Writes row by row, and finds the wrong row when the others are written."""

    def write(
        self, keys: Tensor, values: Tensor, *, metadata: Any = None, strength: Any = None, **options: Any
    ):
        if len(keys) < 2 or (metadata is not None and len(metadata) != len(keys)):
            return self.store.write(keys, values, metadata=metadata, strength=strength, **options)
        rows = [slice(row, row + 1) for row in range(len(keys))]
        ids = [
            self.store.write(
                keys[row],
                values[row],
                metadata=None if metadata is None else metadata[row],
                strength=None if strength is None else strength[row],
                **options,
            )
            for row in rows
        ]
        return torch.cat(ids)


class StingyStore(PassingStore):
    """Lets one record too many go."""

    def evict(self, policy: Policy, keep: int, **options: Any) -> Tensor:
        return self.store.evict(policy, max(0, keep - 1), **options)


class FavouriteStore(PassingStore):
    """Evicts by its own policy, whatever it is told."""

    def evict(self, policy: Policy, keep: int, **options: Any) -> Tensor:
        return self.store.evict(least_often_used(), keep, **options)


class AfterthoughtStore(PassingStore):
    """Takes the k nearest first and filters afterwards."""

    def read(self, queries: Tensor, k: int = 32, *, where: Any = None, **options: Any) -> Hits:
        hits = self.store.read(queries, k, **options)
        fits = torch.isin(hits.ids, self.store.ids(where))
        return Hits(hits.ids.where(fits, -1), hits.scores, hits.values)


class NumberingStore(PassingStore):
    """Answers in ascending order of id, whatever the order asked."""

    def get(self, ids: Tensor) -> Records:
        return self.store.get(ids.sort().values)


class SharingStore(PassingStore):
    """Keeps the caller's own metadata rather than a copy."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.given: dict[int, Any] = {}

    def write(
        self,
        keys: Tensor,
        values: Tensor,
        *,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        **options,
    ) -> Tensor:
        ids = self.store.write(keys, values, metadata=metadata, **options)
        self.given.update(zip(ids.tolist(), metadata or [None] * len(ids), strict=True))
        return ids

    def get(self, ids: Tensor) -> Records:
        return self.store.get(ids)._replace(metadata=[self.given[id_] for id_ in ids.tolist()])


class ShortStore(PassingStore):
    """Fills up what it did not find with the last record's values."""

    def read(self, queries: Tensor, k: int = 32, **options: Any) -> Hits:
        hits = self.store.read(queries, k, **options)
        if not self.store.count():
            return hits
        values = self.store.gather(hits.ids.clamp(min=0).flatten())[1]
        return hits._replace(values=values.view_as(hits.values))


class OnceStore(PassingStore):
    """Counts a record as read once per call, however many queries found it."""

    def read(self, queries: Tensor, k: int = 32, *, touch: bool = True, **options: Any) -> Hits:
        hits = self.store.read(queries, k, touch=False, **options)
        if touch:
            self.store.read(queries[:1], k, touch=True, **options)
        return hits


class OpenStore(PassingStore):
    """Goes on answering after it was closed."""

    def close(self) -> None:
        pass


def opener(kind: type[PassingStore]) -> Any:
    return lambda path, **options: kind(RamStore(**options))


FEW = settings(
    max_examples=300, stateful_step_count=20, phases=[Phase.generate], derandomize=True, database=None
)


@pytest.mark.parametrize(
    ("kind", "law", "given"),
    [
        (UndeadStore, answers.deleted, ()),
        (ForgetfulStore, answers.updated, ()),
        (SortingStore, answers.updated, ()),
        (MixingStore, lasting.namespaces_apart, ()),
        (RecyclingStore, answers.ids_are_never_reused, (False,)),
        (ShakyStore, answers.exact, ("inner_product", torch.float32)),
        (ShakyStore, answers.exact, ("hamming", torch.uint8)),
        (RoundingStore, answers.exact, ("euclidean", torch.float32)),
        (HastyStore, answers.refused_whole, ()),
        (StingyStore, lasting.evicted, (least_often_used(), torch.float32)),
        (FavouriteStore, lasting.evicted, (lasting.POLICIES["least_recently_used"](), torch.float32)),
        (FavouriteStore, lasting.evicted, (lasting.POLICIES["most_redundant"](), torch.uint8)),
        (AfterthoughtStore, answers.filtered, ()),
        (NumberingStore, answers.found_by_id, ()),
        (SharingStore, answers.the_caller_keeps_its_tensors, ()),
        (ShortStore, answers.fewer_than_asked, ()),
        (OnceStore, answers.usage_is_kept, ()),
        (OpenStore, answers.closed, ()),
    ],
)
def test_a_faulty_store_is_found_out(tmp_path: Path, kind: type[PassingStore], law: Any, given: tuple):
    law(opener(PassingStore), tmp_path, *given)
    with pytest.raises(FAULT):
        law(opener(kind), tmp_path, *given)


@pytest.mark.parametrize(
    "kind",
    [
        ForgetfulStore,
        MixingStore,
        RecyclingStore,
        ShakyStore,
        HastyStore,
        StingyStore,
        AfterthoughtStore,
        FavouriteStore,
        OnceStore,
    ],
)
def test_a_random_history_finds_it_too(kind: type[PassingStore]):
    with pytest.raises(AssertionError):
        check_histories(opener(kind), False, FEW)
