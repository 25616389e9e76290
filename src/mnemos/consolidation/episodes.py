"""The fast store of experiences: encoded in one shot, replayed, let go."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.consolidation.columns import CLASS, Columns, Replayed
from mnemos.consolidation.layout import Layout
from mnemos.consolidation.priorities import Prioritised
from mnemos.consolidation.selection import Selection, Traces, drawn, uniform, weights_of
from mnemos.retention.policy import Policy, least_surprising
from mnemos.stores.base import Store

Encode = Callable[[Tensor], Tensor]


def as_they_are(inputs: Tensor) -> Float[Tensor, "rows keys"]:
    """Keys that are the inputs themselves."""
    return inputs.detach().flatten(1).float()


@final
class Episodes:
    """A store of experiences: inputs, targets, and whatever else is to come back with them.

        episodes = Episodes(mnemos.open("episodes.memory"), capacity=1000, balanced=True)
        episodes.write(inputs, targets)
        batch = episodes.sample(128)

    An experience is a record of the store, found by id, by its key and by its metadata; so it lasts, is
    evicted by a policy, and can be deleted, which is a lesion. What has been written or deleted by anybody
    else is seen at the next call. A copy of the values lies in RAM, from which samples are taken.

    Where there is no more room the weakest go. Without a strength, every experience draws one by lot: what
    stays is then a uniform sample of all that was ever written (Vitter 1985), and most of what comes late is
    never written at all. With the loss as its strength the most surprising stay.

    Args:
        store: open; this object writes to one namespace of it.
        capacity: experiences at most; None is no limit.
        balanced: whether every class has an equal part of the capacity. Targets are then classes.
        policy: which go first, by the store's own account of their use.
        encode: inputs to keys, (rows, keys), by which experiences are found. It should keep what is alike
            apart; the default is the inputs themselves, flat.
        namespace: of the store.
        seed: of lots and samples.

    Raises:
        ValueError: the namespace holds something else.
    """

    def __init__(
        self,
        store: Store,
        capacity: int | None = None,
        *,
        balanced: bool = False,
        policy: Policy | None = None,
        encode: Encode = as_they_are,
        namespace: str = "episodes",
        seed: int = 0,
    ) -> None:
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity must be at least 1, or None, not {capacity}")
        self.store, self.capacity, self.balanced = store, capacity, balanced
        self.policy, self.encode, self.namespace = policy or least_surprising(), encode, namespace
        self.generator = torch.Generator().manual_seed(seed)
        self._columns = Columns(store, namespace)
        self._cumulative: dict[Selection, tuple[int, Tensor]] = {}  # with the version they were made of

    def __len__(self) -> int:
        self._columns.refresh()
        return len(self._columns)

    @property
    def version(self) -> int:
        """Another number whenever the experiences have changed, or their order."""
        self._columns.refresh()
        return self._columns.version

    @property
    def layout(self) -> Layout | None:
        """What an experience looks like; None before the first."""
        self._columns.refresh()
        return self._columns.layout

    def write(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        strength: Float[Tensor, " rows"] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        **others: Tensor,
    ) -> Int[Tensor, " written"]:
        """Encodes a batch, in one shot, and lets go of what there is no room for.

        Args:
            strength: 0 or more; what is weakest goes first. None draws lots.
            metadata: beside the class, of each.
            others: more fields by name, (rows, ...): logits, rewards.

        Returns:
            The ids of what was written and has stayed, ascending: all, or fewer where the capacity is
            reached.

        Raises:
            ValueError: fields that do not fit what was written before; nothing has changed.
        """
        self._columns.refresh()
        fields = {"inputs": inputs, "targets": targets, **others}
        layout = self._columns.layout or Layout.of(fields)
        values = layout.pack(fields)
        groups = classes_of(targets)
        if self.balanced and groups is None:
            raise ValueError(
                f"a balanced store needs classes for targets: integers of shape (rows,), "
                f"not {targets.dtype} of shape {tuple(targets.shape)}"
            )
        if strength is None:
            strength = torch.rand(len(values), dtype=torch.float64, generator=self.generator)
        described: list[Mapping[str, Any] | None]
        described = [None] * len(values) if metadata is None else [dict(one) for one in metadata]
        if len(strength) != len(values) or len(described) != len(values):
            raise ValueError(f"strength and metadata must be of {len(values)} experiences")
        if groups is None:
            groups = torch.full((len(values),), -1)
        else:
            described = [
                {**(one or {}), CLASS: group} for one, group in zip(described, groups.tolist(), strict=True)
            ]
        staying = self._staying(groups, strength.double())
        ids = self._columns.write(
            layout,
            self.encode(inputs[staying]),
            values[staying],
            groups[staying],
            strength[staying],
            [described[row] for row in staying.tolist()],
        )
        gone = self._let_go()
        return ids[~torch.isin(ids, gone)]

    def _staying(self, groups: Tensor, strength: Tensor) -> Int[Tensor, " staying"]:
        """Which of a batch would not be the first to go: the others need not be written at all."""
        everything = torch.arange(len(groups))
        if self.capacity is None or self.policy.name != least_surprising().name:
            return everything
        held, weights = self._columns.groups, self._columns.strength
        quota = self._quota(torch.cat([held, groups]))
        stay = []
        for group in groups.unique().tolist() if self.balanced else [None]:
            inside = torch.ones_like(held, dtype=torch.bool) if group is None else held == group
            new = everything if group is None else everything[groups == group]
            both = torch.cat([weights[inside], strength[new]])
            # Among equals the oldest goes first, so the later the better.
            best = both.flip(0).argsort(descending=True, stable=True)[:quota]
            later = len(both) - 1 - best - int(inside.sum())
            stay.append(new[later[later >= 0]])
        return torch.cat(stay).sort().values

    def _quota(self, groups: Tensor) -> int:
        assert self.capacity is not None
        if not self.balanced:
            return self.capacity
        classes = max(1, len(groups.unique()))
        if self.capacity < classes:
            raise ValueError(
                f"capacity must leave room for one of each of {classes} classes, not {self.capacity}"
            )
        return self.capacity // classes

    def _let_go(self) -> Int[Tensor, " gone"]:
        """Evicts what there is no room for."""
        if self.capacity is None or (not self.balanced and len(self._columns) <= self.capacity):
            return torch.empty(0, dtype=torch.int64)
        groups, counts = self._columns.groups.unique(return_counts=True)
        quota = self._quota(groups)
        if not self.balanced:
            return self._columns.evict(self.policy, quota, {})
        gone = [
            self._columns.evict(self.policy, quota, {CLASS: group})
            for group, count in zip(groups.tolist(), counts.tolist(), strict=True)
            if count > quota
        ]
        return torch.cat([torch.empty(0, dtype=torch.int64), *gone])

    def sample(
        self,
        rows: int,
        selection: Selection | Prioritised | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Replayed:
        """Draws experiences, with replacement.

        Args:
            selection: how; None is uniform.
            generator: the chance; None is that of these episodes.

        Raises:
            ValueError: there is nothing to draw from.
        """
        self._columns.refresh()
        return self._columns.take(self._draw(rows, selection or uniform(), generator or self.generator))

    def _draw(
        self, rows: int, selection: Selection | Prioritised, generator: torch.Generator
    ) -> Int[Tensor, " rows"]:
        count = len(self._columns)
        if not count:
            raise ValueError("there are no experiences to draw from")
        if isinstance(selection, Prioritised):
            return selection.draw(self._columns.ids, self._columns.version, rows, generator)
        if selection.weigh is None:
            return torch.randint(count, (rows,), generator=generator)
        version, cumulative = self._cumulative.get(selection, (-1, torch.empty(0)))
        if version != self._columns.version:
            cumulative = weights_of(selection, self._columns.traces(selection.reads_keys)).cumsum(0)
            # One selection of each name: those that were made for one moment would pile up.
            self._cumulative = {
                one: made for one, made in self._cumulative.items() if one.name != selection.name
            }
            self._cumulative[selection] = self._columns.version, cumulative
        if not cumulative[-1] > 0:
            raise ValueError(f"{selection.name} gives no experience a weight above 0")
        return drawn(cumulative, rows, generator)

    def traces(self, *, keys: bool = False) -> Traces:
        """What is known of every experience, in the order in which samples number them."""
        self._columns.refresh()
        return self._columns.traces(keys)

    def get(self, ids: Int[Tensor, " rows"]) -> Replayed:
        """Experiences by id.

        Raises:
            KeyError: one that is not there.
        """
        self._columns.refresh()
        return self._columns.take(self._columns.places(ids))

    def nearest(self, inputs: Tensor, k: int = 1) -> Replayed:
        """What the store alone answers: the `k` experiences with the nearest keys, best first, (rows, k,
        ...).

        Raises:
            ValueError: there are fewer than `k`.
        """
        if len(self) < k:
            raise ValueError(f"k must be at most the {len(self)} experiences there are, not {k}")
        hits = self.store.read(self.encode(inputs), k, where={"namespace": self.namespace})
        flat = self.get(hits.ids.flatten())
        shape = hits.ids.shape
        others = {name: one.unflatten(0, shape) for name, one in flat.others.items()}
        return Replayed(hits.ids, flat.inputs.unflatten(0, shape), flat.targets.unflatten(0, shape), others)

    def delete(self, where: Mapping[str, Any] | None = None) -> int:
        """Deletes the experiences that fit a filter, all of them by default: a lesion."""
        return self.store.delete(where={**(where or {}), "namespace": self.namespace})

    def state_dict(self) -> dict[str, Any]:
        """The order of experiences and the generator: what the store does not keep."""
        self._columns.refresh()
        return {"ids": self._columns.ids.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on drawing where another process ended, on the same store."""
        self.generator.set_state(state["generator"])
        self._columns.arrange(state["ids"])
        self._cumulative.clear()


def classes_of(targets: Tensor) -> Int[Tensor, " rows"] | None:
    """The targets, if they are classes: integers, one for each row."""
    if targets.dim() != 1 or targets.is_floating_point() or targets.dtype in (torch.bool, torch.uint8):
        return None
    return targets.detach().cpu().long()
