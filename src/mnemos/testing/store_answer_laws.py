"""The laws of what a store answers: exact by default, and addressable."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mnemos.retention.policy import first_in_first_out
from mnemos.stores.base import Metric, Store, StoreClosedError, StoreError
from mnemos.stores.exact import WORST, exact_scores
from mnemos.testing.records import contents, same_bits
from mnemos.testing.store_trial import (
    Clock,
    Opener,
    check_unchanged,
    coarse_keys,
    fill,
    fine_keys,
    ids_of,
    numbered,
)


def exact(open_store: Opener, path: Path, metric: Metric, dtype: torch.dtype) -> None:
    """The true top k, ties by lowest id: for coarse keys, keys in general position, and near ties."""
    samples = {
        "many ties": (coarse_keys(90, 6, dtype, seed=0), coarse_keys(7, 6, dtype, seed=1)),
        "general position": (fine_keys(90, 9, dtype, seed=2), fine_keys(7, 9, dtype, seed=3)),
        "far from the origin": (
            fine_keys(90, 9, dtype, 4, offset=1e3),
            fine_keys(7, 9, dtype, 5, offset=1e3),
        ),
        "with zeros": (torch.cat([coarse_keys(9, 3, dtype, 6) * 0, coarse_keys(9, 3, dtype, 6)]),) * 2,
    }
    for what, (keys, queries) in samples.items():
        with open_store(path / what, metric=metric) as store:
            ids = store.write(keys, numbered(len(keys)))
            ids = torch.cat([ids, store.write(keys[:9], numbered(9))])
            _check_nearest(store, queries, ids, torch.cat([keys, keys[:9]]), metric, what)


def _check_nearest(
    store: Store, queries: Tensor, ids: Tensor, keys: Tensor, metric: Metric, what: str
) -> None:
    """Against sorting every score."""
    scores = exact_scores(metric, queries.unsqueeze(1), keys)
    order = scores.sort(dim=1, descending=WORST[metric] < 0, stable=True).indices
    for k in (1, 7, len(ids)):
        hits = store.read(queries, k)
        nearest = order[:, :k]
        assert ids_of(hits.ids) == ids_of(ids[nearest]), f"{metric}, {what}, k={k}: not the nearest"
        assert torch.equal(hits.scores, scores.gather(1, nearest).float()), f"{metric}, {what}: wrong scores"
        found = store.get(hits.ids.flatten()).values.view_as(hits.values)
        assert same_bits(hits.values, found), f"{what}: values of other records"
    alone = [store.read(query.unsqueeze(0), 7).ids for query in queries]
    assert torch.equal(torch.cat(alone), store.read(queries, 7).ids), f"{what}: queries disturb each other"


def fewer_than_asked(open_store: Opener, path: Path) -> None:
    """Where fewer than k were found ids are -1, scores the worst there is and values zero."""
    for metric in ("inner_product", "euclidean"):
        with open_store(path / metric, metric=metric) as store:
            assert ids_of(store.read(torch.ones(2, 3), 4).ids) == [[-1] * 4] * 2, "an empty store answered"
            store.write(torch.ones(2, 3), numbered(2, start=5), metadata=[{"a": 1}, {"a": 2}])
            hits = store.read(torch.ones(1, 3), 3, where={"a": 2})
            assert ids_of(hits.ids) == [[1, -1, -1]], "the filter, or what fills up to k"
            assert hits.scores[0, 1:].tolist() == [WORST[metric]] * 2
            assert hits.values[0].tolist() == [[6, -6], [0, 0], [0, 0]]
            nobody = store.read(torch.ones(1, 3), 2, where={"namespace": "nobody"})
            assert ids_of(nobody.ids) == [[-1, -1]]
            assert store.read(torch.ones(0, 3), 2).ids.shape == (0, 2)


def filtered(open_store: Opener, path: Path) -> None:
    """A filter is applied before the k nearest are taken, never after."""
    with open_store(path / "store") as store:
        keys = fine_keys(60, 4, torch.float32, seed=0)
        ids = store.write(keys, numbered(60), metadata=[{"part": row % 6, "row": row} for row in range(60)])
        for where, fits in (
            ({"part": 3}, lambda row: row % 6 == 3),
            ({"part": {"in": [1, 2]}, "row": {"lt": 50}}, lambda row: row % 6 in (1, 2) and row < 50),
            ({"row": {"ge": 10, "lt": 50}}, lambda row: 10 <= row < 50),
            ({"part": {"ne": 0}}, lambda row: row % 6 != 0),
            ({"absent": {"ne": 0}}, lambda row: True),
            ({"absent": 0}, lambda row: False),
        ):  # fmt: skip
            chosen = torch.tensor([row for row in range(60) if fits(row)], dtype=torch.int64)
            assert ids_of(store.ids(where)) == ids_of(ids[chosen]), f"ids({where})"
            assert store.count(where) == len(chosen), f"count({where})"
            scores = exact_scores("inner_product", keys[0], keys[chosen])
            best = ids[chosen][scores.sort(descending=True, stable=True).indices][:5]
            found = store.read(keys[:1], 5, where=where).ids[0]
            assert ids_of(found[found >= 0]) == ids_of(best), f"read(where={where})"


def approximate(open_store: Opener, path: Path) -> None:
    """The index is asked for, and never returns what is gone or was overwritten."""
    with open_store(path / "store", metric="euclidean") as store:
        keys = fine_keys(400, 8, torch.float32, seed=0)
        ids = store.write(keys, numbered(400))
        with pytest.raises(StoreError):
            store.read(keys[:1], approximate=True)
        store.build_index()
        hits = store.read(keys, 1, approximate=True)
        assert (hits.ids[:, 0] == ids).float().mean() > 0.9, "the index does not find what it holds"
        store.delete(ids[:100])
        store.update(ids[100:200], keys=keys[100:200] + 9)
        store.write(keys[:50] + 1, numbered(50))
        hits = store.read(keys, 5, approximate=True)
        there = hits.ids >= 0
        known = set(ids_of(store.ids()))
        assert set(ids_of(hits.ids[there])) <= known, "the index returned a deleted record"
        current = store.gather(hits.ids[there])[0]
        owners = keys.unsqueeze(1).expand(-1, 5, -1)[there]
        scores = exact_scores("euclidean", owners, current).float()
        assert torch.allclose(hits.scores[there], scores, atol=1e-5), "scores of overwritten keys"


def ids_are_never_reused(open_store: Opener, path: Path, durable: bool) -> None:
    seen: list[int] = []
    store = open_store(path / "store")
    for _ in range(3):
        ids = ids_of(store.write(torch.ones(4, 2), numbered(4)))
        assert ids == sorted(set(ids)), "ids must be distinct and ascending"
        assert not seen or min(ids) > max(seen), f"ids {ids} were given before: {seen}"
        seen += ids
        store.delete(torch.tensor(ids))
        store.compact()
        if durable:
            store.close()
            store = open_store(path / "store")
    store.close()


def revised(open_store: Opener, path: Path, durable: bool) -> None:
    """The revision is another one after every change, and only then."""
    with open_store(path / "store") as store:
        seen = [store.revision]
        ids = fill(store)
        for change in (
            lambda: None,
            lambda: store.update(ids[:1], strength=torch.ones(1)),
            lambda: store.delete(ids[:1]),
            lambda: store.evict(first_in_first_out(), keep=2),
        ):
            change()
            seen.append(store.revision)
        assert len(set(seen)) == len(seen), f"a change kept the revision: {seen}"
        store.read(store.get(store.ids()).keys[:1], 1)
        assert store.revision == seen[-1], "reading is no change"
        if durable:
            with open_store(path / "store") as other:
                other.write(*store.gather(store.ids()[:1]))
            assert store.revision != seen[-1], "what another writes is a change, too"


def found_by_id(open_store: Opener, path: Path) -> None:
    """`get` and `gather` answer in the order asked, and copies."""
    with open_store(path / "store") as store:
        ids = fill(store)
        asked = ids[torch.tensor([7, 3, 3, 0, 19])]
        records, whole = store.get(asked), contents(store)
        keys, values = store.gather(asked)
        rows = [7, 3, 3, 0, 19]
        assert ids_of(records.ids) == ids_of(asked)
        assert records.metadata == [whole.metadata[row] for row in rows]
        for got in (records.keys, keys):
            assert same_bits(got, whole.keys[rows])
        for got in (records.values, values):
            assert same_bits(got, whole.values[rows])
        with pytest.raises(KeyError, match="999999"):
            store.get(torch.tensor([int(ids[0]), 999999]))
        with pytest.raises(KeyError, match="999999"):
            store.gather(torch.tensor([999999]))
        for tensor in (keys, values, records.keys, records.values):
            tensor.zero_()
        for metadata in records.metadata:
            (metadata or {}).clear()
        check_unchanged(store, whole, "only copies of its records were changed")
        assert store.get(ids[:0]).keys.shape == (0, 5)


def the_caller_keeps_its_tensors(open_store: Opener, path: Path) -> None:
    with open_store(path / "store") as store:
        keys, values = torch.ones(2, 3, requires_grad=True), torch.ones(2, 2)
        metadata: list[Any] = [{"a": [1]}, None]
        ids = store.write(keys, values, metadata=metadata)
        with torch.no_grad():
            keys.zero_()
            values.zero_()
        metadata[0]["a"].append(2)
        records = store.get(ids)
        assert records.keys.tolist() == [[1, 1, 1]] * 2
        assert records.values.tolist() == [[1, 1]] * 2
        assert records.metadata == [{"a": [1]}, None]
        assert not records.keys.requires_grad


def updated(open_store: Opener, path: Path) -> None:
    """`update` replaces what is given and nothing else, all or none."""
    with open_store(path / "store", metric="euclidean") as store:
        ids = fill(store)
        before = contents(store)
        chosen, rest = ids[4:6], torch.cat([ids[:4], ids[6:]])
        store.update(chosen, keys=torch.full((2, 5), 50.0))
        store.update(chosen.flip(0), metadata=[{"new": 1}, None])
        store.update(chosen, values=numbered(2, start=70), strength=torch.tensor([8.0, 9.0]))
        after = store.get(chosen)
        assert after.keys.tolist() == [[50.0] * 5] * 2
        assert after.values.tolist() == [[70, -70], [71, -71]]
        assert after.metadata == [None, {"new": 1}], "metadata must follow the order of the ids"
        assert after.usage.strength.tolist() == [8, 9]
        assert torch.equal(after.usage.written_at, before.usage.written_at[4:6])
        assert same_bits(store.get(rest).keys, torch.cat([before.keys[:4], before.keys[6:]]))
        assert ids_of(store.read(torch.full((1, 5), 50.0), 2).ids) == [ids_of(chosen)]
        assert not set(ids_of(chosen)) & set(ids_of(store.read(before.keys[4:6], 3).ids.flatten()))
        before = contents(store)
        wrongs: list[tuple[dict[str, Any], type[Exception]]] = [
            ({"ids": torch.tensor([int(ids[0]), 999999]), "keys": torch.ones(2, 5)}, KeyError),
            ({"ids": ids[[0, 0]], "keys": torch.ones(2, 5)}, ValueError),
            ({"ids": ids[:2], "keys": torch.tensor([[1.0] * 5, [torch.nan] * 5])}, ValueError),
            ({"ids": ids[:2], "values": numbered(2).double()}, ValueError),
        ]
        for wrong, error in wrongs:
            with pytest.raises(error):
                store.update(**wrong)
            check_unchanged(store, before, f"update({wrong}) was refused")


def refused_whole(open_store: Opener, path: Path) -> None:
    """A batch with anything wrong in it is refused before anything is written."""
    with open_store(path / "store") as store:
        with pytest.raises(ValueError, match="NaN"):
            store.write(torch.full((1, 5), torch.nan), numbered(1))
        assert store.count() == 0
        fill(store)
        before, keys = contents(store), torch.ones(3, 5)
        wrongs: list[dict[str, Any]] = [
            {"keys": torch.cat([keys[:2], torch.full((1, 5), torch.inf)])},
            {"keys": keys.half()},
            {"keys": torch.ones(3, 4)},
            {"values": numbered(3).int()},
            {"metadata": [{}, {}, {"a": float("nan")}]},
            {"metadata": [{}]},
            {"strength": torch.tensor([1.0, 1.0, -1.0])},
            {"namespace": ""},
        ]
        for wrong in wrongs:
            with pytest.raises(ValueError):  # noqa: PT011
                store.write(**{"keys": keys, "values": numbered(3), **wrong})
            check_unchanged(store, before, f"write({wrong}) was refused")
        with pytest.raises(ValueError, match="k must be"):
            store.read(keys, 0)
        with pytest.raises(ValueError, match="queries"):
            store.read(keys[:, :2])
        assert ids_of(store.write(keys[:0], numbered(0))) == [], "an empty batch is a batch"


def deleted(open_store: Opener, path: Path) -> None:
    """What is deleted is never returned again, by whatever way it was found."""
    with open_store(path / "store") as store:
        ids = fill(store)
        keys = contents(store).keys
        with pytest.raises(KeyError, match="999999"):
            store.delete(torch.tensor([int(ids[0]), 999999]))
        neither_or_both: list[dict[str, Any]] = [{}, {"ids": ids[:1], "where": {}}]
        for wrong in neither_or_both:
            with pytest.raises(ValueError, match="ids"):
                store.delete(**wrong)
        assert store.count() == 20, "a refused delete deleted"
        assert store.delete(ids[[3, 1]]) == 2
        assert store.delete(where={"parity": 0}) == 9  # of ten even ones the first has no metadata
        left = [int(ids[row]) for row in range(20) if row == 0 or (row % 2 and row not in (1, 3))]
        assert ids_of(store.ids()) == left
        assert store.count() == len(left)
        for hits in (store.read(keys, 20), store.read(keys, 20, where={"parity": {"ne": 5}})):
            assert set(ids_of(hits.ids.flatten())) == {*left, -1}
        with pytest.raises(KeyError):
            store.get(ids[1:2])
        assert store.delete(where={}) == len(left)
        assert store.namespaces() == []


def usage_is_kept(open_store: Opener, path: Path) -> None:
    """Written at, last read, times read and strength."""
    clock = Clock()
    with open_store(path / "store", metric="euclidean", clock=clock) as store:
        ids = store.write(torch.tensor([[1.0], [2.0], [3.0]]), numbered(3))
        clock.now = 1010.0
        store.read(torch.tensor([[1.1], [1.2], [2.9]]), 1)
        store.get(ids)
        store.gather(ids)
        store.read(torch.tensor([[2.0]]), 1, touch=False)
        usage = store.get(ids).usage
        assert ids_of(usage.ids) == ids_of(ids)
        assert usage.written_at.tolist() == [1000.0] * 3
        assert usage.last_read.tolist() == [1010.0, 1000.0, 1010.0]
        assert usage.times_read.tolist() == [2, 0, 1], "every query that finds a record reads it once"
        assert usage.strength.tolist() == [1.0] * 3
        clock.now = 1020.0
        store.update(ids[:1], values=numbered(1, start=9))
        store.flush()
        again = store.get(ids).usage
        assert all(torch.equal(*fields) for fields in zip(usage, again, strict=True)), (
            "update or flush changed it"
        )


def closed(open_store: Opener, path: Path) -> None:
    store = open_store(path / "store")
    ids = fill(store)
    store.close()
    store.close()
    for call in (
        lambda: store.read(torch.ones(1, 5)),
        lambda: store.get(ids),
        lambda: store.write(torch.ones(1, 5), numbered(1)),
        lambda: store.count(),
        lambda: store.compact(),
    ):
        with pytest.raises(StoreClosedError):
            call()


def empty(open_store: Opener, path: Path) -> None:
    """Every verb has an answer for a store that was never written."""
    with open_store(path / "store") as store:
        assert store.schema is None
        assert store.metric is None
        assert store.count() == 0
        assert store.namespaces() == []
        assert ids_of(store.ids()) == []
        assert ids_of(store.get(store.ids()).ids) == []
        assert store.delete(where={}) == 0
        assert ids_of(store.evict(first_in_first_out(), 0)) == []
        assert not store.verify()
        store.compact()
        store.flush()
