"""What attention remembers in a store: pairs of key and value that outlast the state and the process."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from mnemos.stores.base import DEFAULT_NAMESPACE, Schema, Store

ATTEMPTS = 10  # to read what another process is erasing


class Archived(NamedTuple):
    """What an archive holds for a query; of size one where that is the same for every row and step."""

    keys: Float[Tensor, "#batch heads #time found keys"]
    values: Float[Tensor, "#batch heads #time found keys"]


@final
class Archive(nn.Module):
    """Keys and values of past steps in an open store: durable, erasable, shared between processes.

        with mnemos.open("novels.memory") as store:
            memory = MemorizingAttention(64, window=128, slots=512, archive=Archive(store))
            outputs, state = memory(inputs)
            state = memory.commit(state, metadata={"title": "Emma"})
            store.delete(where={"title": "Emma"})

    A record is a step, with the keys of all heads side by side, so that no head can know a step that another
    does not. Yet each head finds its own, exactly: beside a head's query stand zeros in the place of the
    other heads', and the inner product with a record is that with the head's own key. The price is as many
    times the multiplications as there are heads; else there would be as many times the records.

    Keys and values are kept in float32. Keys can be compared as long as the weights stay those that made
    them: open the store with a `fingerprint` of the model. Each layer needs a namespace of its own.

    Args:
        store: open, of inner products. It stays the caller's, who closes it.
        namespace: where in the store.
    """

    def __init__(self, store: Store, namespace: str = DEFAULT_NAMESPACE) -> None:
        super().__init__()
        self.store, self.namespace = store, namespace

    def check(self, heads: int, key_size: int) -> None:
        """Raises ValueError unless the store's records are, or can become, those of such an attention."""
        expected = Schema("float32", heads * key_size, "float32", (heads, key_size), "inner_product")
        metric, schema = self.store.metric, self.store.schema
        if metric not in (None, expected.metric):
            raise ValueError(f"archive needs a store that compares by inner_product, not by {metric}")
        if schema not in (None, expected):
            raise ValueError(f"archive needs a store of {expected}, not of {schema}")

    def write(
        self,
        keys: Float[Tensor, "batch slots heads keys"],
        values: Float[Tensor, "batch slots heads keys"],
        step: Int[Tensor, "batch slots"],
        mask: Bool[Tensor, "batch slots"],
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    ) -> None:
        """Writes the steps where the mask is true in one transaction: when it returns, they are durable.

        Args:
            step: number of each, kept in its metadata beside those given for all rows or for each.
        """
        self.check(*keys.shape[2:])
        facts = _facts(metadata, len(keys))
        rows, steps = mask.nonzero()[:, 0].tolist(), step[mask].tolist()
        described = [{**facts[row], "step": number} for row, number in zip(rows, steps, strict=True)]
        if described:
            pairs = keys[mask].flatten(1).float(), values[mask].float()
            self.store.write(*pairs, namespace=self.namespace, metadata=described)

    def read(self, queries: Float[Tensor, "batch heads time keys"], count: int | None) -> Archived | None:
        """The `count` pairs whose keys each query likes best, None for all there are; None if there are none.

        Gradients do not enter the store, and what is read does not count as used.
        """
        attempts = 0
        while True:
            ids = self._all() if count is None else self._best(queries.detach(), count)
            try:
                return self._pairs(ids, queries) if ids.numel() else None
            except KeyError:  # another process has erased one since it was found
                attempts += 1
                if attempts == ATTEMPTS:
                    raise

    def _all(self) -> Int[Tensor, "1 1 1 found"]:
        return self.store.ids({"namespace": self.namespace}).view(1, 1, 1, -1)

    def _best(
        self, queries: Float[Tensor, "batch heads time keys"], count: int
    ) -> Int[Tensor, "batch heads time found"]:
        own = torch.eye(queries.shape[1], dtype=torch.bool, device=queries.device)[:, None, :, None]
        beside_zeros = torch.where(own, queries.unsqueeze(3), 0).flatten(0, 2).flatten(1)
        hits = self.store.read(beside_zeros, count, where={"namespace": self.namespace}, touch=False)
        found = int((hits.ids[:1] >= 0).sum())  # every query finds as many
        return hits.ids[:, :found].unflatten(0, queries.shape[:3])

    def _pairs(
        self, ids: Int[Tensor, "#batch #heads #time found"], queries: Float[Tensor, "batch heads time keys"]
    ) -> Archived:
        heads, width = queries.shape[1], queries.shape[3]
        distinct, place = ids.unique(return_inverse=True)
        keys, values = self.store.gather(distinct)
        rows = place * heads + torch.arange(heads).view(-1, 1, 1)
        tables = keys.reshape(-1, width), values.reshape(-1, width)
        return Archived(*(functional.embedding(rows, table).to(queries.device) for table in tables))

    def extra_repr(self) -> str:
        return repr(self.namespace)


def _facts(
    metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, rows: int
) -> Sequence[Mapping[str, Any]]:
    """The metadata of each row."""
    if metadata is None or isinstance(metadata, Mapping):
        metadata = [metadata or {}] * rows
    if len(metadata) != rows:
        raise ValueError(f"metadata must be one mapping, or one for each of {rows} rows, not {len(metadata)}")
    if any("step" in facts for facts in metadata):
        raise ValueError('metadata must not have a "step": the number of the step is kept there')
    return metadata
