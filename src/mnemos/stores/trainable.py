"""Reading from a store inside a network, and training the rows that were read."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mnemos.stores.base import Metric, Store
from mnemos.stores.row_optimizer import RowOptimizer


class Retrieved(NamedTuple):
    """The nearest records of each query, best first; where fewer were found id -1, the worst score, zeros."""

    ids: Int[Tensor, "queries found"]
    scores: Float[Tensor, "queries found"]  # the metric's own value, as a function of query and key
    keys: Shaped[Tensor, "queries found keys"]
    values: Shaped[Tensor, "queries found *value"]


class TrainableRows:
    """A store inside a network: gradients reach the query, and the rows whose optimiser is given.

        rows = TrainableRows(store, values=adam(1e-2))
        found = rows.read(encoder(inputs), k=8)
        outputs = mix(soft_top_k(found.scores, k=8), found.values)
        loss(outputs, targets).backward()
        rows.step()  # one transaction: when it returns, what was learned is durable

    Rows are trained in float32 (float64 where stored so), and rounded to the nearest number of the
    store's dtype when they are written. In bfloat16 a change below 2^-9 of the number, in float16 below
    2^-12, is lost: store float32 where steps are small.

    Args:
        store: open; reading and `step` go to it, and nothing else does.
        keys: how keys are trained; None keeps them constant. Packed bits can only be constant.
        values: how values are trained; None keeps them constant.

    `optimizers` is the two by name. Between steps one may be replaced by one of the same kind, with
    another learning rate for instance.
    """

    def __init__(
        self, store: Store, *, keys: RowOptimizer | None = None, values: RowOptimizer | None = None
    ) -> None:
        self.store = store
        self.optimizers = {"keys": keys, "values": values}
        self._pasts = {"keys": _Past(), "values": _Past()}
        self._read: list[tuple[Tensor, dict[str, Tensor]]] = []  # ids and leaves of each read since the step

    def read(
        self,
        queries: Shaped[Tensor, "queries keys"],
        k: int = 32,
        *,
        where: Mapping[str, Any] | None = None,
        approximate: bool = False,
        touch: bool = True,
    ) -> Retrieved:
        """As `Store.read`, with gradients. A record that several queries found is one row.

        Raises:
            ValueError: rows of a dtype that has no gradient are to be trained.
            KeyError: another process deleted what was just found; read again.
        """
        hits = self.store.read(queries.detach(), k, where=where, approximate=approximate, touch=touch)
        found = hits.ids >= 0
        if self.store.schema is None:  # nothing was ever written, so the width of keys is the queries'
            nothing = queries.new_zeros(*hits.ids.shape, queries.shape[1])
            return Retrieved(hits.ids, hits.scores, nothing, hits.values)
        ids, place = hits.ids[found].unique(return_inverse=True)
        leaves = self._leaves(ids)
        places = torch.full_like(hits.ids, len(ids)).masked_scatter(found, place)  # absent: one past the end
        keys, values = (_spread(leaves[name], places, queries) for name in ("keys", "values"))
        scores = _scores(self.store.schema.metric, queries, keys, hits.scores.to(queries.device))
        return Retrieved(hits.ids, scores, keys, values)

    def gather(self, ids: Int[Tensor, " rows"]) -> Shaped[Tensor, "rows *value"]:
        """The values of the records with these ids, with gradients. It does not count as a read.

        Raises:
            KeyError: there is no such record.
        """
        distinct, place = ids.unique(return_inverse=True)
        return self._leaves(distinct)["values"][place]

    def step(self) -> int:
        """Moves the rows read since the last step, in one transaction, and returns how many.

        A row is read again first, so that a change that somebody else made meanwhile is built upon.
        Where the store refuses, nothing has changed, and the gradients are still there.

        Raises:
            KeyError: a row was deleted since it was read; `zero_grad` and read again.
            ValueError: a gradient that is not finite.
        """
        gradients = {name: self._gradients(name) for name in ("keys", "values")}
        ids = torch.cat([reached for reached, _ in gradients.values()]).unique()
        if not len(ids):
            self.zero_grad()
            return 0
        stored = dict(zip(("keys", "values"), self.store.gather(ids), strict=True))
        changed, pasts = {}, {}
        for name, (reached, gradient) in gradients.items():
            if len(reached):
                at = torch.searchsorted(ids, reached)
                rows, pasts[name] = self._moved(name, reached, stored[name][at], gradient)
                changed[name] = stored[name].index_copy(0, at, rows)
        self.store.update(ids, keys=changed.get("keys"), values=changed.get("values"))
        for name, (steps, moments) in pasts.items():  # only now: the store has acknowledged
            self._pasts[name].record(gradients[name][0], steps, moments)
        self.zero_grad()
        return len(ids)

    def zero_grad(self) -> None:
        """Forgets what was read since the last step, with its gradients."""
        self._read.clear()

    def state_dict(self) -> dict[str, Any]:
        """What the optimisers know of each row, by id; tensors, numbers and strings only."""
        return {
            name: {"optimizer": _name(self.optimizers[name]), **past.state_dict()}
            for name, past in self._pasts.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state_dict` of the same optimisers on the same store.

        Raises:
            ValueError: the state is of other optimisers.
        """
        for name, optimizer in self.optimizers.items():
            given, expected = state[name]["optimizer"], _name(optimizer)
            if given != expected:
                raise ValueError(f"the state of {name} is of {given}, and {name} are trained by {expected}")
        self._pasts = {name: _Past(state[name]) for name in self._pasts}

    def _leaves(self, ids: Tensor) -> dict[str, Tensor]:
        """Keys and values of distinct records, remembered until the next step if they are to be trained."""
        stored = dict(zip(("keys", "values"), self.store.gather(ids), strict=True))
        leaves = {name: _leaf(rows, self.optimizers[name], name) for name, rows in stored.items()}
        if torch.is_grad_enabled() and any(self.optimizers.values()):
            self._read.append((ids, leaves))
        return leaves

    def _moved(
        self, name: str, ids: Tensor, stored: Tensor, gradients: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The rows after a step, in the store's dtype; and the steps and moments to record."""
        optimizer = self.optimizers[name]
        assert optimizer is not None  # only leaves have gradients, and only what is trained is a leaf
        steps, moments = self._pasts[name].recall(ids, gradients, optimizer.moments)
        steps = steps + 1
        counts = steps.to(gradients.dtype).view(-1, *[1] * (gradients.dim() - 1))
        rows, new = optimizer.step(stored.to(gradients.dtype), gradients, moments.unbind(1), counts)
        return rows.to(stored.dtype), (steps, torch.stack(new, 1) if new else moments)

    def _gradients(self, name: str) -> tuple[Tensor, Tensor]:
        """The distinct rows that a gradient reached, and its sum for each."""
        reached = [(ids, leaves[name].grad) for ids, leaves in self._read]
        parts = [(ids, gradient) for ids, gradient in reached if gradient is not None and len(ids)]
        if not parts:
            return torch.empty(0, dtype=torch.int64), torch.empty(0)
        rows, place = torch.cat([ids for ids, _ in parts]).unique(return_inverse=True)
        gradients = torch.cat([gradient for _, gradient in parts])
        if not gradients.isfinite().all():
            raise ValueError(f"a gradient of the {name} is not finite: no row was changed")
        return rows, gradients.new_zeros(len(rows), *gradients.shape[1:]).index_add(0, place, gradients)


class _Past:
    """What an optimiser knows of each row. Place 0 belongs to no row and stays zero: a row's beginning."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self._places: dict[int, int] = {}
        self._steps: Tensor | None = None
        self._moments: Tensor | None = None
        if state and len(state["ids"]):
            self.record(state["ids"], state["steps"], state["moments"])

    def recall(self, ids: Tensor, gradients: Tensor, moments: int) -> tuple[Tensor, Tensor]:
        """Steps (rows) and moments (rows, moments, *row)."""
        if self._steps is None or self._moments is None:
            zeros = gradients.new_zeros(len(ids), moments, *gradients.shape[1:])
            return torch.zeros(len(ids), dtype=torch.int64), zeros
        places = torch.tensor([self._places.get(id_, 0) for id_ in ids.tolist()], dtype=torch.int64)
        return self._steps[places], self._moments[places]

    def record(self, ids: Tensor, steps: Tensor, moments: Tensor) -> None:
        places = [self._places.setdefault(id_, len(self._places) + 1) for id_ in ids.tolist()]
        self._steps = _grown(self._steps, steps, len(self._places) + 1)
        self._moments = _grown(self._moments, moments, len(self._places) + 1)
        self._steps[places] = steps
        self._moments[places] = moments

    def state_dict(self) -> dict[str, Tensor]:
        ids = torch.tensor(list(self._places), dtype=torch.int64)
        if self._steps is None or self._moments is None:
            return {"ids": ids, "steps": torch.zeros(0, dtype=torch.int64), "moments": torch.zeros(0)}
        rows = slice(1, len(ids) + 1)
        return {"ids": ids, "steps": self._steps[rows].clone(), "moments": self._moments[rows].clone()}


def _grown(held: Tensor | None, like: Tensor, count: int) -> Tensor:
    """At least `count` rows; twice as many whenever they run out, so that growing costs little."""
    if held is None:
        return like.new_zeros(count, *like.shape[1:])
    if count <= len(held):
        return held
    return torch.cat([held, held.new_zeros(max(count, 2 * len(held)) - len(held), *held.shape[1:])])


def _name(optimizer: RowOptimizer | None) -> str | None:
    return optimizer.name if optimizer else None


def _leaf(stored: Tensor, optimizer: RowOptimizer | None, name: str) -> Tensor:
    if optimizer is None:
        return stored
    if not stored.is_floating_point():
        raise ValueError(
            f"{name} of {stored.dtype} have no gradient: they can only be constant ({name}=None)"
        )
    return stored.to(torch.promote_types(stored.dtype, torch.float32)).requires_grad_()


def _spread(rows: Tensor, places: Tensor, queries: Tensor) -> Tensor:
    """The row at each place, zeros at the place past the end, where and as the queries are."""
    both_float = rows.is_floating_point() and queries.is_floating_point()
    rows = rows.to(queries.device, queries.dtype if both_float else rows.dtype)
    return torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])[places.to(queries.device)]


def _scores(metric: Metric, queries: Tensor, keys: Tensor, scores: Tensor) -> Tensor:
    """The store's scores, computed again as a function of queries and keys."""
    if metric == "hamming":
        return scores
    if metric == "euclidean":
        again = (queries.unsqueeze(1) - keys).norm(dim=-1)
    elif metric == "cosine":
        again = torch.cosine_similarity(queries.unsqueeze(1), keys, dim=-1)
    else:
        again = (keys @ queries.unsqueeze(-1)).squeeze(-1)
    return torch.where(scores.isinf(), scores.to(again.dtype), again)
