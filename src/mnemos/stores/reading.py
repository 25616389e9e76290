"""How an embedded store answers: from its directory, its catalogue and its read counts."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from mnemos.retention.policy import Usage
from mnemos.stores import arguments
from mnemos.stores.approximate import Indexes
from mnemos.stores.base import Hits, Records
from mnemos.stores.directory import Directory, empty_column
from mnemos.stores.exact import WORST
from mnemos.stores.filters import Filter, parse
from mnemos.stores.search import Nearest, nearest
from mnemos.stores.usage import ReadCounts


class Reader:
    """Answers from what the directory knows; the store keeps that up to date.

    Args:
        scratch_bytes: bounds the scores that a search holds at once.
    """

    def __init__(
        self, directory: Directory, database: sqlite3.Connection, reads: ReadCounts, scratch_bytes: int
    ) -> None:
        self.directory, self._database, self._reads = directory, database, reads
        self._scratch_bytes = scratch_bytes

    def find(self, ids: Int[np.ndarray, " records"]) -> NDArray[np.int64]:
        """Where records lie; KeyError if one is not in the store."""
        places = self.directory.places(ids)
        if (places < 0).any():
            raise arguments.missing_ids(ids[places < 0].tolist())
        return places

    def select(self, chosen: Filter) -> NDArray[np.int64]:
        """Ids of the records that fit, ascending."""
        on_name = Filter(tuple(one for one in chosen.conditions if one.name == "namespace"))
        rest = Filter(tuple(one for one in chosen.conditions if one.name != "namespace"))
        named = None
        if on_name.conditions:
            known = self.directory.namespaces
            named = {number for name, number in known.items() if on_name.fits(name, None)}
        ids = self.directory.ids(named)
        if not rest.conditions:
            return ids
        fragment, parameters = rest.to_sql("''", "metadata")
        query = f"SELECT id, {fragment} FROM metadata"  # the fragment holds names, never values
        verdicts = np.array(self._database.execute(query, parameters).fetchall(), np.int64).reshape(-1, 2)
        fits = np.full(self.directory.next_id, rest.fits("", None))
        fits[verdicts[:, 0]] = verdicts[:, 1]
        return ids[fits[ids]]

    def nearest(
        self,
        queries: Shaped[Tensor, "queries keys"],
        k: int,
        namespace: str,
        rest: Filter,
        indexes: Indexes | None,
    ) -> Nearest:
        """The nearest records of a namespace that fit the rest of the filter.

        Args:
            indexes: where to find an index to answer from; None is exact.
        """
        directory, also = self.directory, None
        if rest.conditions:
            chosen = Filter((*parse({"namespace": namespace}).conditions, *rest.conditions))
            blocks = directory.blocks_of(self.select(chosen))
        else:
            after = -1
            if indexes is not None:
                also, after = indexes.candidates(directory, self._database, namespace, queries, k)
            blocks = directory.blocks(directory.namespaces.get(namespace, -1), after)
        assert directory.schema is not None
        metric = directory.schema.metric
        return nearest(queries, blocks, self._keys, k, metric, self._scratch_bytes, also)

    def _keys(self, ids: NDArray[np.int64]) -> Tensor:
        return self.directory.column("keys", ids)

    def hits(self, found: Nearest) -> Hits:
        """The search's answer with its values."""
        present = found.ids >= 0
        schema = self.directory.schema
        assert schema is not None
        if present.all():
            flat = self.directory.column("values", found.ids.ravel())
            values = flat.view(*present.shape, *schema.value_shape)
        else:
            values = empty_column(schema, "values").new_zeros(*present.shape, *schema.value_shape)
            values[torch.from_numpy(present)] = self.directory.column("values", found.ids[present])
        return Hits(torch.from_numpy(found.ids), torch.from_numpy(found.scores).float(), values)

    def columns(self, ids: Int[np.ndarray, " records"]) -> tuple[Tensor, Tensor]:
        """Keys and values."""
        self.find(ids)
        if self.directory.schema is None:
            return torch.empty(0, 0), torch.empty(0)
        return self._keys(ids), self.directory.column("values", ids)

    def records(self, ids: Int[np.ndarray, " records"]) -> Records:
        keys, values = self.columns(ids)
        names = {number: name for name, number in self.directory.namespaces.items()}
        query = "SELECT id, metadata FROM metadata WHERE id IN (SELECT value FROM json_each(?))"
        texts: Mapping[int, str] = dict(self._database.execute(query, (json.dumps(ids.tolist()),)))
        described: list[dict[str, Any] | None] = [
            json.loads(texts[id_]) if id_ in texts else None for id_ in ids.tolist()
        ]
        numbers = self.directory.headers(ids)["namespace"].tolist()
        namespaces = [names[number] for number in numbers]
        return Records(torch.from_numpy(ids.copy()), keys, values, described, namespaces, self.usage(ids))

    def usage(self, ids: Int[np.ndarray, " records"]) -> Usage:
        headers = self.directory.headers(ids)
        written = torch.from_numpy(headers["written_at"].copy())
        last_read, times_read = self._reads.of(self._database, ids)
        return Usage(
            torch.from_numpy(ids.copy()),
            written,
            torch.maximum(written, torch.from_numpy(last_read)),
            torch.from_numpy(times_read),
            torch.from_numpy(headers["strength"].copy()),
        )


def no_hits(queries: int, k: int) -> Hits:
    """The answer of a store that has no schema yet, so that more of nothing is assumed to be better."""
    shape = (queries, k)
    return Hits(torch.full(shape, -1), torch.full(shape, WORST["inner_product"]), torch.zeros(shape))
