"""The peers of `store.py`, each with the same verbs; run by it, one process each.

    python store_peers.py NAME FOLDER KEYS

reads one JSON list [verb, arguments...] per line and answers each with one line. Ids are the row numbers of
the keys; the value of a record is its id.
"""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

QUERIES, K, STEP = 256, 32, 10_000


class Mnemos:
    def __init__(self, folder: str) -> None:
        import torch

        import mnemos

        torch.set_num_threads(1)
        self.tensor, self.store = torch.from_numpy, mnemos.open(folder)

    def write(self, start: int, keys: np.ndarray) -> None:
        self.store.write(self.tensor(keys), self.tensor(np.arange(start, start + len(keys))))

    def read(self, queries: np.ndarray) -> np.ndarray:
        return self.store.read(self.tensor(queries), K).ids.numpy()

    def gather(self, ids: np.ndarray) -> Any:
        return self.store.gather(self.tensor(ids))

    def update(self, ids: np.ndarray, keys: np.ndarray) -> None:
        self.store.update(self.tensor(ids), keys=self.tensor(keys))

    def delete(self, ids: np.ndarray) -> None:
        self.store.delete(self.tensor(ids))

    def close(self) -> None:
        self.store.close()


class Faiss:
    """Called directly on an array in memory: only its reads are comparable."""

    def __init__(self, folder: str) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.index = faiss.IndexFlatIP(128)

    def write(self, start: int, keys: np.ndarray) -> None:
        self.index.add(keys)

    def read(self, queries: np.ndarray) -> np.ndarray:
        return self.index.search(queries, K)[1]


class Sqlite:
    """Keys as blobs; a read is a scan of all of them."""

    def __init__(self, folder: str) -> None:
        self.database = sqlite3.connect(f"{folder}/records.sqlite", isolation_level=None)
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.execute("PRAGMA synchronous=FULL")
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, key BLOB, value INTEGER)"
        )

    def _change(self, statement: str, rows: Iterable[tuple]) -> None:
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany(statement, rows)
        self.database.execute("COMMIT")

    def write(self, start: int, keys: np.ndarray) -> None:
        rows = ((start + row, key.data, start + row) for row, key in enumerate(keys))
        self._change("INSERT INTO records VALUES (?, ?, ?)", rows)

    def read(self, queries: np.ndarray) -> np.ndarray:
        cursor = self.database.execute("SELECT id, key FROM records")
        return nearest(queries, iter(lambda: cursor.fetchmany(STEP), []))

    def gather(self, ids: np.ndarray) -> Any:
        one = "SELECT key, value FROM records WHERE id = ?"
        rows = [self.database.execute(one, (id_,)).fetchone() for id_ in ids.tolist()]
        return array([key for key, _ in rows]), np.array([value for _, value in rows])

    def update(self, ids: np.ndarray, keys: np.ndarray) -> None:
        pairs = zip((key.data for key in keys), ids.tolist(), strict=True)
        self._change("UPDATE records SET key = ? WHERE id = ?", pairs)

    def delete(self, ids: np.ndarray) -> None:
        self._change("DELETE FROM records WHERE id = ?", ((id_,) for id_ in ids.tolist()))

    def close(self) -> None:
        self.database.close()


class Lmdb:
    """Keys and values as one entry under the id; a read is a scan of all of them."""

    def __init__(self, folder: str) -> None:
        import lmdb

        self.environment = lmdb.open(folder, map_size=1 << 34)

    def write(self, start: int, keys: np.ndarray) -> None:
        with self.environment.begin(write=True) as transaction:
            for row, key in enumerate(keys, start):
                name = row.to_bytes(8, "big")
                transaction.put(name, key.tobytes() + name, append=True)

    def read(self, queries: np.ndarray) -> np.ndarray:
        with self.environment.begin(buffers=True) as transaction:
            return nearest(queries, _batches(iter(transaction.cursor())))

    def gather(self, ids: np.ndarray) -> Any:
        with self.environment.begin() as transaction:
            rows = [transaction.get(id_.to_bytes(8, "big")) for id_ in ids.tolist()]
        return array([row[:-8] for row in rows]), np.array([int.from_bytes(row[-8:], "big") for row in rows])

    def update(self, ids: np.ndarray, keys: np.ndarray) -> None:
        with self.environment.begin(write=True) as transaction:
            for id_, key in zip(ids.tolist(), keys, strict=True):
                name = id_.to_bytes(8, "big")
                transaction.put(name, key.tobytes() + transaction.get(name)[-8:])

    def delete(self, ids: np.ndarray) -> None:
        with self.environment.begin(write=True) as transaction:
            for id_ in ids.tolist():
                transaction.delete(id_.to_bytes(8, "big"))

    def close(self) -> None:
        self.environment.close()


class Lancedb:
    def __init__(self, folder: str) -> None:
        import lancedb
        import pyarrow

        self.arrow, database = pyarrow, lancedb.connect(folder)
        self.table = database.create_table("records", schema=self._rows([], []).schema, exist_ok=True)

    def _rows(self, ids: Any, keys: Any) -> Any:
        arrow, ids = self.arrow, self.arrow.array(ids, self.arrow.int64())
        flat = arrow.array(np.ravel(keys), arrow.float32())
        vectors = arrow.FixedSizeListArray.from_arrays(flat, 128)
        return arrow.table({"id": ids, "key": vectors, "value": ids})

    def write(self, start: int, keys: np.ndarray) -> None:
        self.table.add(self._rows(np.arange(start, start + len(keys)), keys))

    def read(self, queries: np.ndarray) -> np.ndarray:
        query = queries[0] if len(queries) == 1 else list(queries)
        search = self.table.search(query).distance_type("dot").limit(K).select(["id", "value", "_distance"])
        found = search.to_arrow()
        ids = found["id"].to_numpy().reshape(-1, K)
        if len(queries) > 1:
            ids = ids[np.argsort(found["query_index"].to_numpy()[::K])]
        return ids

    def gather(self, ids: np.ndarray) -> Any:
        found = self.table.search().where(_in(ids)).limit(len(ids)).to_arrow()
        return found["key"].combine_chunks().flatten().to_numpy().reshape(-1, 128), found["value"].to_numpy()

    def update(self, ids: np.ndarray, keys: np.ndarray) -> None:
        self.table.merge_insert("id").when_matched_update_all().execute(self._rows(ids, keys))

    def delete(self, ids: np.ndarray) -> None:
        self.table.delete(_in(ids))

    def close(self) -> None:
        del self.table


class QdrantEdge:
    """Without an HNSW index, which it builds only when told to optimise."""

    def __init__(self, folder: str) -> None:
        import qdrant_edge

        self.api = api = qdrant_edge
        vectors = api.EdgeVectorParams(size=128, distance=api.Distance.Dot)
        new = not os.listdir(folder)
        make = api.EdgeShard.create if new else api.EdgeShard.load
        self.shard = make(folder, api.EdgeConfig(vectors=vectors, max_search_threads=1))

    def write(self, start: int, keys: np.ndarray) -> None:
        points = [self.api.Point(id_, key, {"value": id_}) for id_, key in enumerate(keys.tolist(), start)]
        self.shard.update(self.api.UpdateOperation.upsert_points(points))

    def read(self, queries: np.ndarray) -> np.ndarray:
        api, exact = self.api, self.api.SearchParams(exact=True)
        requests = [
            api.QueryRequest(query=api.Query.Nearest(query), limit=K, with_payload=True, params=exact)
            for query in queries.tolist()
        ]
        found = self.shard.query_batch(api.QueryBatchRequest(requests))
        return np.array([[point.id for point in points] for points in found])

    def gather(self, ids: np.ndarray) -> Any:
        found = self.shard.retrieve(ids.tolist(), True, True)
        keys = np.array([record.vector for record in found], np.float32)
        return keys, np.array([record.payload["value"] for record in found])

    def update(self, ids: np.ndarray, keys: np.ndarray) -> None:
        pairs = zip(ids.tolist(), keys.tolist(), strict=True)
        vectors = [self.api.PointVectors(id_, key) for id_, key in pairs]
        self.shard.update(self.api.UpdateOperation.update_vectors(vectors))

    def delete(self, ids: np.ndarray) -> None:
        self.shard.update(self.api.UpdateOperation.delete_points(ids.tolist()))

    def close(self) -> None:
        self.shard.close()


class Chroma:
    """Its reads come from an HNSW graph, which it cannot do without."""

    def __init__(self, folder: str) -> None:
        import chromadb

        client = chromadb.PersistentClient(folder, chromadb.Settings(anonymized_telemetry=False))
        settings = {"hnsw": {"space": "ip", "num_threads": 1}}
        self.most = client.get_max_batch_size()
        self.records = client.get_or_create_collection(
            "records", configuration=settings, embedding_function=None
        )

    def write(self, start: int, keys: np.ndarray) -> None:
        for first in range(0, len(keys), self.most):
            part = keys[first : first + self.most]
            ids = range(start + first, start + first + len(part))
            values = [{"value": id_} for id_ in ids]
            self.records.add(ids=list(map(str, ids)), embeddings=part, metadatas=values)

    def read(self, queries: np.ndarray) -> np.ndarray:
        found = self.records.query(query_embeddings=queries, n_results=K, include=["metadatas", "distances"])
        return np.array(found["ids"], np.int64)

    def gather(self, ids: np.ndarray) -> Any:
        found = self.records.get(ids=list(map(str, ids.tolist())), include=["embeddings", "metadatas"])
        return found["embeddings"], np.array([one["value"] for one in found["metadatas"]])

    def update(self, ids: np.ndarray, keys: np.ndarray) -> None:
        self.records.update(ids=list(map(str, ids.tolist())), embeddings=keys)

    def delete(self, ids: np.ndarray) -> None:
        self.records.delete(ids=list(map(str, ids.tolist())))

    def close(self) -> None:
        del self.records


def nearest(queries: np.ndarray, batches: Iterable[list[tuple]]) -> np.ndarray:
    """The ids with the largest inner products, over (id, key) in batches."""
    best = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for batch in batches:
        ids = np.broadcast_to(np.array([id_ for id_, _ in batch]), (len(queries), len(batch)))
        scores = np.concatenate([scores, queries @ array([key for _, key in batch]).T], axis=1)
        best = np.concatenate([best, ids], axis=1)
        kept = np.argpartition(scores, -min(K, best.shape[1]), axis=1)[:, -K:]
        best, scores = np.take_along_axis(best, kept, 1), np.take_along_axis(scores, kept, 1)
    return np.take_along_axis(best, np.argsort(-scores, axis=1), 1)


def array(keys: list) -> np.ndarray:
    return np.frombuffer(b"".join(keys), np.float32).reshape(len(keys), -1)


def _batches(entries: Iterator[tuple]) -> Iterator[list[tuple]]:
    batch = []
    for name, data in entries:
        batch.append((int.from_bytes(name, "big"), data[:-8]))
        if len(batch) == STEP:
            yield batch
            batch = []
    if batch:
        yield batch


def _in(ids: np.ndarray) -> str:
    return f"id IN ({','.join(map(str, ids.tolist()))})"


PEERS = {
    "mnemos": Mnemos,
    "faiss": Faiss,
    "sqlite": Sqlite,
    "lmdb": Lmdb,
    "lancedb": Lancedb,
    "qdrant-edge": QdrantEdge,
    "chroma": Chroma,
}


class Verbs:
    """What `store.py` may ask for; each answers with seconds, or with ids."""

    def __init__(self, make: Callable[[], Any], path: str) -> None:
        both = np.load(path, mmap_mode="r")
        self.make, self.queries, self.keys = make, np.array(both[:QUERIES]), both[QUERIES:]
        self.peer = make()

    def load(self, start: int, stop: int, batch: int) -> dict:
        return {"seconds": sum(self.write100(start, stop, batch)["times"])}

    def write100(self, start: int, stop: int, batch: int) -> dict:
        if batch < STEP and not hasattr(self.peer, "gather"):
            return {"times": []}
        firsts = range(start, stop, batch)
        parts = [(first, np.array(self.keys[first : min(first + batch, stop)])) for first in firsts]
        return {"times": [_timed(self.peer.write, *part) for part in parts]}

    def gather(self, *several: list[int]) -> dict:
        return self._if("gather", [(np.array(ids),) for ids in several])

    def read1(self, start: int, count: int) -> dict:
        return self._if("read", [(self.queries[row : row + 1],) for row in range(start, start + count)])

    def read256(self, start: int, count: int) -> dict:
        return self._if("read", [(self.queries[start : start + count],)])

    def update(self, ids: list[int]) -> dict:
        return self._if("update", [(np.array(ids), np.array(self.keys[ids[::-1]]))])

    def delete(self, ids: list[int]) -> dict:
        return self._if("delete", [(np.array(ids),)])

    def open(self) -> dict:
        return self._reopened("gather", np.array([0]))

    def open_read(self) -> dict:
        return self._reopened("read", self.queries[:1])

    def found(self, count: int) -> dict:
        return {"ids": self.peer.read(self.queries[:count]).tolist()}

    def truth(self, count: int, records: int) -> dict:
        parts = range(0, records, STEP)
        blocks = ([*enumerate(self.keys[a : min(a + STEP, records)], a)] for a in parts)
        return {"ids": nearest(self.queries[:count], blocks).tolist()}

    def _if(self, verb: str, calls: list[tuple]) -> dict:
        method = getattr(self.peer, verb, None)
        return {"times": [_timed(method, *call) for call in calls] if method else []}

    def _reopened(self, verb: str, *arguments: Any) -> dict:
        if not hasattr(self.peer, "close"):
            return {"times": []}
        self.peer.close()
        del self.peer
        began = time.perf_counter()
        self.peer = self.make()
        getattr(self.peer, verb)(*arguments)
        return {"times": [time.perf_counter() - began]}


def _timed(method: Callable, *arguments: Any) -> float:
    began = time.perf_counter()
    method(*arguments)
    return time.perf_counter() - began


def main(name: str, folder: str, keys: str) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    answers = os.fdopen(os.dup(1), "w")  # what a library prints must not be taken for an answer
    os.dup2(2, 1)
    verbs = Verbs(lambda: PEERS[name](folder), keys)
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        answers.write(json.dumps(getattr(verbs, verb)(*arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
