"""A few exemplars of every class: chosen by herding, rehearsed, and what classes are told by."""

import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize, pad

from mnemos.consolidation.distillation import Teacher, seen
from mnemos.consolidation.episodes import Episodes
from mnemos.consolidation.rehearsal import Rehearsal
from mnemos.consolidation.selection import Selection
from mnemos.consolidation.term import Batches, evaluated

Features = Callable[[Tensor], Tensor]  # inputs to features, (rows, width)
PART = 1024  # inputs whose features are made at a time


def herding(features: Float[Tensor, "rows width"], count: int) -> Int[Tensor, " chosen"]:
    """Rows chosen one after the other so that their mean stays as close as it can to the mean of all.

    Rebuffi et al. 2017, "iCaRL: Incremental Classifier and Representation Learning", algorithm 4:
    p_k = argmin over x of ‖μ − (φ(x) + Σ_(j<k) φ(p_j)) / k‖, each row at most once. So the first rows of the
    choice are the choice of fewer. The distance falls like 1/k, and not like the 1/√k of a choice by lot
    (Welling 2009, "Herding dynamical weights to learn"). For that, μ has to be the plain mean: brought to
    length 1, as others do with it, it lies outside of all that means of features of length 1 can reach.

    Args:
        count: rows to choose; all of them, where there are no more.
    """
    features = features.detach().double()
    mean, lengths = features.mean(0), features.square().sum(1)
    wanted = mean.clone()  # k μ − Σ_(j<k) φ(p_j), and ‖wanted − φ(x)‖ is to be least
    chosen: list[int] = []
    for _ in range(min(count, len(features))):
        distances = lengths - 2 * (features @ wanted)
        chosen.append(int(distances.argmin()))
        lengths[chosen[-1]] = torch.inf
        wanted += mean - features[chosen[-1]]
    return torch.tensor(chosen, dtype=torch.int64, device=features.device)


@torch.no_grad()
def directions(features: Features, inputs: Tensor) -> Float[Tensor, "rows width"]:
    """Features of length 1, a few inputs at a time; a module is measured as in `eval()`."""
    measuring = evaluated(features) if isinstance(features, nn.Module) else contextlib.nullcontext()
    with measuring:
        return normalize(torch.cat([features(part).flatten(1) for part in inputs.split(PART)]), dim=1)


@final
class NearestMean:
    """The class is the one whose exemplars' mean is nearest, in the features that the network has now.

    Rebuffi et al. 2017, algorithm 1: features and means have length 1. It does not depend on the output
    weights, whose biases towards what is new are most of what a network seems to forget.

        classify = NearestMean(episodes, network[:-1], outputs=10)
        classify(inputs).argmax(1)

    Means are made anew when the experiences or the weights have changed.

    Args:
        episodes: whose targets are classes.
        features: inputs to features. The weights of a module are watched; for any other function, means
            are made at every call.
        outputs: how many classes there are.
    """

    def __init__(self, episodes: Episodes, features: Features, outputs: int) -> None:
        self.episodes, self.features, self.outputs = episodes, features, outputs
        self._made: tuple[Tensor, Tensor] | None = None
        self._of: list[tuple[Any, int]] = []  # what the means were made of, and its version

    def __call__(self, inputs: Tensor) -> Float[Tensor, "rows outputs"]:
        """Minus the squared distance to the mean of each class, -inf where a class has no exemplars.

        Raises:
            ValueError: there are no exemplars, or a class is no output.
        """
        classes, means = self.means(inputs.device)
        given = directions(self.features, inputs)
        scores = given.new_full((len(given), self.outputs), -torch.inf)
        lengths = given.square().sum(1, keepdim=True) + means.square().sum(1)
        scores[:, classes] = 2 * given @ means.mT - lengths
        return scores

    def means(
        self, device: torch.device | None = None
    ) -> tuple[Int[Tensor, " classes"], Float[Tensor, "classes width"]]:
        """The classes that have exemplars, ascending, and the mean of each, of length 1.

        Args:
            device: where the network is; None is the CPU.
        """
        of: list[tuple[Any, int]] = [(self.episodes, self.episodes.version)]
        if isinstance(self.features, nn.Module):
            weights = itertools.chain(self.features.parameters(), self.features.buffers())
            of += [(one, one._version) for one in weights]
        same = len(of) == len(self._of) and all(
            one is other and version == before
            for (one, version), (other, before) in zip(of, self._of, strict=True)
        )
        if self._made is None or not same or not isinstance(self.features, nn.Module):
            self._made, self._of = self._means(device or torch.device("cpu")), of
        return self._made

    def _means(self, device: torch.device) -> tuple[Tensor, Tensor]:
        traces = self.episodes.traces()
        classes, group = traces.groups.unique(return_inverse=True)
        if not len(classes) or classes[0] < 0 or classes[-1] >= self.outputs:
            raise ValueError(
                f"exemplars must be of classes from 0 to {self.outputs - 1}, not {classes.tolist()}"
            )
        found = directions(self.features, self.episodes.get(traces.ids).inputs.to(device))
        sums = found.new_zeros(len(classes), found.shape[1]).index_add(0, group.to(device), found)
        return classes.to(device), normalize(sums, dim=1)


@final
class ICaRL(Rehearsal):
    """Exemplars of each class, rehearsed with what the network answered before: iCaRL.

        icarl = ICaRL(Episodes(store, capacity=1000, balanced=True), network[:-1])
        consolidator = Consolidator(network, [icarl])
        loss = consolidator.loss(icarl.classification(network(inputs), targets), inputs)  # at every step
        consolidator.end_context(batches)
        classify = NearestMean(icarl.episodes, network[:-1], outputs=10)

    Rebuffi et al. 2017, algorithms 2 to 5. Every output is a logistic unit. New classes are taught by
    `classification`, over what is new and over exemplars; what was known when the last context ended is held,
    over both, to the logistic outputs of the network of that time. The loss is the paper's sum over a batch
    and `rows` exemplars, over the rows of the batch. In the paper's own batches exemplars are as frequent as
    among all data of the context; `rows` is theirs if it is so chosen.

    When a context ends, `count` exemplars of each class are chosen by herding from the batches that are
    given, and are written with a strength by rank. So where the capacity is shared by more classes, what was
    chosen last goes first.

    Args:
        episodes: with the default policy; `balanced`, if it has a capacity.
        features: inputs to what exemplars are chosen by: the network without its last layer.
        rows: exemplars that are rehearsed beside each batch.
        selection: which; None is uniform.
        count: exemplars of a class at most; None is what the capacity has room for.
    """

    name = "icarl"

    def __init__(
        self,
        episodes: Episodes,
        features: Features,
        rows: int = 128,
        selection: Selection | None = None,
        *,
        count: int | None = None,
    ) -> None:
        super().__init__(episodes, rows, selection, online=False)
        if count is None and episodes.capacity is None:
            raise ValueError("count must be given, since the episodes have no capacity")
        if episodes.capacity is not None and not episodes.balanced:
            raise ValueError("episodes with a capacity must be balanced, so that every class has its part")
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1, or None, not {count}")
        self.features, self.count = features, count
        self.teacher = Teacher()

    def classification(
        self, outputs: Float[Tensor, "rows outputs"], targets: Int[Tensor, " rows"]
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy of new classes, those taught since the last context ended: the sum over
        classes, the mean over rows."""
        taught, known = seen(self.teacher.taught, targets), self.teacher.known
        new = (taught & ~pad(known, (0, len(taught) - len(known)))).nonzero()
        new = new.squeeze(1).to(outputs.device)
        wanted = (targets.unsqueeze(1) == new).to(outputs.dtype)
        return binary_cross_entropy_with_logits(outputs[:, new], wanted, reduction="sum") / len(outputs)

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        if self.teacher.network is None:
            return None
        exemplars = self.episodes.sample(self.rows, self.selection) if len(self.episodes) else None
        both = inputs if exemplars is None else torch.cat([inputs, exemplars.inputs.to(inputs.device)])
        known = self.teacher.known.nonzero().squeeze(1).to(inputs.device)
        with torch.no_grad():
            taught = self.teacher.network(both)[:, known].sigmoid()
        outputs = self.model(both)
        total = binary_cross_entropy_with_logits(outputs[:, known], taught, reduction="sum")
        if exemplars is not None:
            targets = exemplars.targets.to(inputs.device)
            total = total + len(targets) * self.classification(outputs[len(inputs) :], targets)
        return total / len(inputs)

    def observe(self, inputs: Tensor, targets: Tensor) -> None:
        self.teacher.observe(targets)

    def end_context(self, batches: Batches) -> None:
        """Chooses exemplars, and holds what is known to what it is now.

        Raises:
            ValueError: there are no batches.
        """
        pairs = list(batches)
        if not pairs:
            raise ValueError("batches must hold the context's examples, from which exemplars are chosen")
        inputs, targets = (torch.cat(parts).detach() for parts in zip(*pairs, strict=True))
        self.teacher.observe(targets)
        self.teacher.end_context(self.model)
        self.encode(inputs, targets)

    def encode(self, inputs: Tensor, targets: Tensor) -> None:
        """Writes exemplars of each class."""
        classes = torch.cat([self.episodes.traces().groups, targets.cpu()]).unique()
        capacity = self.episodes.capacity
        room = len(targets) if capacity is None else max(1, capacity // len(classes))
        count = room if self.count is None else min(room, self.count)
        chosen, ranks = [], []
        with evaluated(self.model):
            for one in targets.unique():
                rows = (targets == one).nonzero().squeeze(1)
                chosen.append(rows[herding(directions(self.features, inputs[rows]), count)])
                ranks.append(torch.arange(len(chosen[-1]), dtype=torch.float64))
        rows, strength = torch.cat(chosen), 1 / (1 + torch.cat(ranks))
        self.episodes.write(inputs[rows], targets[rows], strength=strength)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | self.teacher.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.teacher.load_state_dict(state, self.model)
