"""Focused against interleaved learning: Rumelhart's network is told of the penguin.

McClelland, McNaughton & O'Reilly 1995, figures 8 to 10 for the network and the section on the penguin for
what is asked. It knows four plants, two birds and two fish. Then it is told that a penguin is a bird and can
swim, either again and again by itself, or among what it knows already, which a fast store replays. Both ways
it learns the new facts; the first way at the cost of the old ones.

A fact has the same learning rate however it is presented, so that one way differs from the other by what else
is presented, and by nothing more.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

import mnemos
from mnemos.consolidation import Consolidator, Episodes, Replay
from mnemos.progress import Advance
from mnemos.studies.fit import descend
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.studies.systems import alone_and_together, recalled
from mnemos.tasks.living_things import ATTRIBUTES, ITEMS, PENGUIN, RELATIONS, Facts, facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

REPRESENTATION, HIDDEN = 8, 15
RATE = 0.1  # of a fact
WITHIN = 0.1  # of the truth, every attribute: what is known
NETWORKS, FULL_NETWORKS = 5, 30
MOST_STEPS = 20_000  # through the old facts, whose criterion is reached long before
PRESENTATIONS = 1000  # of the penguin
MEASURED_AT = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, PRESENTATIONS)
ARMS = ("focused", "interleaved")


@final
class SemanticNetwork(nn.Module):
    """An item, which becomes a representation, and a relation, to attributes: all units logistic."""

    def __init__(self) -> None:
        super().__init__()
        self.representation = nn.Linear(len(ITEMS), REPRESENTATION)
        self.hidden = nn.Linear(REPRESENTATION + len(RELATIONS), HIDDEN)
        self.attributes = nn.Linear(HIDDEN, len(ATTRIBUTES))

    def forward(self, inputs: Float[Tensor, "facts inputs"]) -> Float[Tensor, "facts attributes"]:
        items, relations = inputs.split([len(ITEMS), len(RELATIONS)], dim=1)
        represented = self.representation(items).sigmoid()
        hidden = self.hidden(torch.cat([represented, relations], dim=1)).sigmoid()
        return self.attributes(hidden).sigmoid()


class Domain(NamedTuple):
    """What is known before, what is told of the penguin, and what is true of it and not told."""

    old: Facts
    told: Facts
    untold: Facts


class Way(NamedTuple):
    """What came of one way to learn of the penguin."""

    presentations: int  # until the penguin's facts were known; one more than there were if they never were
    increase: float  # of the squared error on the old facts by then
    lost: int  # attributes of old facts that by then were nearer to the untruth
    flight: float  # how far robin and canary still can fly by then, 0 to 1
    old: dict[int, float]  # squared errors, by presentations
    told: dict[int, float]
    systems: dict[str, dict[str, float]]  # squared errors by then, of the old, the told and the untold


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    networks = FULL_NETWORKS if full else NETWORKS
    domain = the_domain()
    ways: dict[str, list[Way]] = {arm: [] for arm in ARMS}
    for number in range(networks):
        advance(number / networks, f"network {number + 1} of {networks}")
        torch.manual_seed(1000 * seed + number)  # the weights
        network = _taught(domain.old)
        for arm, learned in ways.items():
            rows = len(domain.old.inputs) if arm == "interleaved" else 0
            learned.append(_told(domain, copy.deepcopy(network), rows, PRESENTATIONS, 1000 * seed + number))
    return {"networks": networks} | _summary(ways)


def the_domain() -> Domain:
    """The penguin is told to be a bird, and what it can do: grow, move and swim."""
    every = facts()
    penguin = every.items == PENGUIN
    told = penguin & (
        (every.relations == RELATIONS.index("isa")) | (every.relations == RELATIONS.index("can"))
    )
    chosen = (~penguin, told, penguin & ~told)
    return Domain(*(Facts(*(field[some] for field in every)) for some in chosen))


def _error(answers: Tensor, attributes: Tensor) -> Tensor:
    """The sum of squares of each fact, the mean over them."""
    return (answers - attributes).square().sum(-1).mean()


@torch.no_grad()
def _squared(network: nn.Module, of: Facts) -> Float[Tensor, " facts"]:
    """The mean squared error of each fact."""
    return (network(of.inputs) - of.attributes).square().mean(-1)


@torch.no_grad()
def _known(network: nn.Module, of: Facts) -> bool:
    return bool((network(of.inputs) - of.attributes).abs().max() < WITHIN)


def _taught(old: Facts) -> SemanticNetwork:
    """A network that knows the old facts, all of them presented at every step."""
    network = SemanticNetwork()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE * len(old.inputs))
    for step in range(MOST_STEPS):
        if step % 20 == 0 and _known(network, old):
            break
        descend(_error(network(old.inputs), old.attributes), optimizer)
    return network


def _told(domain: Domain, network: SemanticNetwork, rows: int, presentations: int, seed: int) -> Way:
    """Presents the penguin's facts so many times, with so many old ones replayed beside them."""
    episodes = Episodes(mnemos.open(":memory:", metric="cosine"), seed=seed)
    old, told = domain.old, domain.told
    facts_in_a_step = len(told.inputs) + rows
    terms = [Replay(episodes, rows, online=False)] if rows else []
    consolidator = Consolidator(network, terms, _error, new_share=len(told.inputs) / facts_in_a_step)
    consolidator.end_context([(old.inputs, old.attributes)])
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE * facts_in_a_step)
    before = _squared(network, old).mean().item()
    by_old: dict[int, float] = {}
    by_told: dict[int, float] = {}
    reached: dict[str, Any] | None = None
    for presented in range(presentations + 1):
        if presented in MEASURED_AT:
            by_old[presented] = _squared(network, old).mean().item()
            by_told[presented] = _squared(network, told).mean().item()
        if reached is None and _known(network, told):
            reached = _at_criterion(domain, network, before) | {"presentations": presented}
        if presented < presentations:
            descend(consolidator.loss(_error(network(told.inputs), told.attributes), told.inputs), optimizer)
    if reached is None:
        reached = _at_criterion(domain, network, before) | {"presentations": presentations + 1}
    return Way(old=by_old, told=by_told, **reached)


@torch.no_grad()
def _at_criterion(domain: Domain, network: SemanticNetwork, before: float) -> dict[str, Any]:
    old = domain.old
    answers = network(old.inputs)
    flies = old.attributes[:, ATTRIBUTES.index("fly")] == 1
    # What a store holds that was written to once: the old facts, and what was told.
    episodes = Episodes(mnemos.open(":memory:", metric="cosine"))
    for written in (old, domain.told):
        episodes.write(written.inputs, written.attributes)
    systems = {}
    for name, of in domain._asdict().items():
        recollected, known = recalled(episodes, of.inputs)
        by_store = (recollected - of.attributes).square().mean(-1)
        systems[name] = alone_and_together(by_store, _squared(network, of), known)
    return {
        "increase": _squared(network, old).mean().item() - before,
        "lost": int(((answers - old.attributes).abs() > 0.5).sum()),
        "flight": answers[flies, ATTRIBUTES.index("fly")].mean().item(),
        "systems": systems,
    }


def _mean(values: Any) -> Any:
    """Of numbers, or of dictionaries of them, entry by entry."""
    first = values[0]
    if isinstance(first, dict):
        return {name: _mean([value[name] for value in values]) for name in first}
    return sum(values) / len(values)


def _summary(ways: Mapping[str, list[Way]]) -> dict[str, Any]:
    """The mean of all networks, and of the presentations the most."""
    means = {
        arm: {name: _mean([getattr(way, name) for way in of]) for name in Way._fields}
        for arm, of in ways.items()
    }
    increase = {arm: mean["increase"] for arm, mean in means.items()}
    measured: dict[str, Any] = {
        f"{name}_{arm}": mean[name]
        for name in ("presentations", "increase", "lost", "flight")
        for arm, mean in means.items()
    }
    measured |= {
        f"most_presentations_{arm}": max(way.presentations for way in of) for arm, of in ways.items()
    }
    # Interleaved learning can leave the old facts better known than before: then any loss is too much.
    beyond = increase["focused"] - 5 * max(0.0, increase["interleaved"])
    measured["focused_beyond_five_times_interleaved"] = beyond
    return measured | {
        name: {arm: mean[name] for arm, mean in means.items()} for name in ("systems", "old", "told")
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Squared errors on the penguin's facts and on the old ones, by the presentations of the penguin's."""
    from mnemos.report.drawing import WITH, WITHOUT, drawing, label

    panels = {"told": "error on what is told of the penguin", "old": "error on what was known before"}
    with drawing(height=2.9, columns=2) as (figure, axes):
        for (name, title), panel in zip(panels.items(), axes, strict=True):
            for arm, colour in (("focused", WITHOUT), ("interleaved", WITH)):
                errors = {int(presented): error for presented, error in measured[name][arm].items()}
                panel.plot(list(errors), list(errors.values()), color=colour, marker="o", markersize=3)
                if name == "old":
                    label(panel, max(errors), errors[max(errors)], arm, colour)
            panel.set_xscale("symlog", linthresh=1)
            panel.set_xticks([0, 1, 10, 100, 1000], ["0", "1", "10", "100", "1,000"])
            panel.set_ylim(0)
            panel.set_title(title)
            panel.set_xlabel("presentations of the penguin")
    return figure


STUDY = Study(
    name="penguin",
    title="A new fact learned alone costs old ones, and among old ones does not (McClelland et al. 1995)",
    measure=measure,
    thresholds={
        "most_presentations_focused": Threshold("<=", PRESENTATIONS),
        "most_presentations_interleaved": Threshold("<=", PRESENTATIONS),
        "increase_interleaved": Threshold("<", 0.02),
        "focused_beyond_five_times_interleaved": Threshold(">", 0.0),
    },
    paper=[
        Figure(
            "what focused learning does to the old facts",
            "quick acquisition, strong interference",
            "McClelland, McNaughton & O'Reilly 1995, on the penguin",
        ),
        Figure(
            "what interleaved learning does to them",
            "slow acquisition, very little interference",
            "McClelland, McNaughton & O'Reilly 1995, on the penguin",
        ),
    ],
    draw=draw,
)
