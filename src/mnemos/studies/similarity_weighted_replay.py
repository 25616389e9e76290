"""What is to be replayed beside something new: all that is known, or only what resembles it?

Saxena, Shobe & McNaughton 2022, "Learning in deep neural networks and brains with similarity-weighted
interleaved learning". What a new class overwrites is what is like it. So where few experiences can be
replayed, they should resemble the new one, by the cosine of representations in the last hidden layer.

Theirs is Fashion-MNIST and boots; here it is MNIST, a network that knows the digits 0 to 8, and then a 9,
whose sibling is the 4. Every experience counts alike, new or replayed; a budget is how many are replayed
beside 16 new ones.
"""

import copy
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

import mnemos
from mnemos.consolidation import ComplementarySystems, Consolidator, Episodes, Replay
from mnemos.consolidation.complementary import System
from mnemos.consolidation.selection import Selection, similar_to, uniform
from mnemos.progress import Advance, between
from mnemos.studies.fit import descend
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.contexts import minibatches
from mnemos.tasks.mnist import Digits, mnist

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

NEW, SIBLING, CLASSES = 9, 4, 10
WIDTHS = (200, 100)
NETWORKS, FULL_NETWORKS = 3, 10
OLD_STEPS, OLD_ROWS, OLD_RATE = 840, 128, 1e-3  # Adam, two passes
STEPS, ROWS, RATE = 300, 16, 0.1  # of the new class: plain descent, its rate falling to zero
STORED = 1000  # of each class
BUDGETS = (6, 12, 24, 48, 96)
BUDGET, TIMES = 24, 4  # what is judged: so many by similarity, beside four times as many of all alike
ASKED = 1000  # images at a time
RULES = ("uniform", "similar")


class Images(NamedTuple):
    """Pixels from 0 to 1, in one row each, and the digits."""

    inputs: Float[Tensor, "images pixels"]
    labels: Int[Tensor, " images"]

    def of(self, chosen: Tensor) -> "Images":
        return Images(self.inputs[chosen], self.labels[chosen])


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    train, test = as_images(mnist())
    networks = FULL_NETWORKS if full else NETWORKS
    found = [
        _of_one_network(
            train, test, 1000 * seed + number, between(advance, number / networks, (number + 1) / networks)
        )
        for number in range(networks)
    ]
    return {"networks": networks} | _summary(found)


def as_images(digits: Digits) -> tuple[Images, Images]:
    """What is learned, and what is asked."""
    return (
        Images(digits.train_images.flatten(1).float() / 255, digits.train_labels),
        Images(digits.test_images.flatten(1).float() / 255, digits.test_labels),
    )


def _of_one_network(train: Images, test: Images, seed: int, advance: Advance) -> dict[str, Any]:
    """Recalls of all digits before and after the new one came, by rule and budget; shares of the systems."""
    advance(0.0, "learning the old digits")
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the weights
    network = _taught(train.of(train.labels != NEW), generator)
    hidden = copy.deepcopy(network[:-1])

    def encode(inputs: Tensor) -> Tensor:
        """Keys: the last hidden layer as it was before the new digit."""
        with torch.no_grad():
            return hidden(inputs)

    episodes = Episodes(mnemos.open(":memory:", metric="euclidean"), encode=encode, seed=seed)
    for label in range(CLASSES):
        if label != NEW:
            _encode(episodes, train, label, generator)
    new = train.of(train.labels == NEW)
    resembling = similar_to(encode(new.inputs[:ASKED]))
    drawn = episodes.sample(ASKED * CLASSES, resembling).targets
    found: dict[str, Any] = {
        "before": _recalls(network, test).tolist(),
        "none": _recalls(_told(network, new, episodes, 0, uniform(), seed), test).tolist(),
        "drawn": (one_hot(drawn, CLASSES).double().mean(0)).tolist(),
    }
    for rule, selection in zip(RULES, (uniform(), resembling), strict=True):
        found[rule] = {}
        for number, budget in enumerate(BUDGETS):
            advance(0.4 + 0.3 * RULES.index(rule) + 0.3 * number / len(BUDGETS), f"{budget} replayed, {rule}")
            told = _told(network, new, episodes, budget, selection, seed)
            found[rule][budget] = _recalls(told, test).tolist()
            if (rule, budget) == ("similar", BUDGET):
                judged = told
    _encode(episodes, train, NEW, generator)
    found["systems"] = _systems(judged, episodes, test)
    return found


def _network(pixels: int) -> nn.Sequential:
    sizes = (pixels, *WIDTHS)
    hidden = [nn.Sequential(nn.Linear(*pair), nn.ReLU()) for pair in pairwise(sizes)]
    return nn.Sequential(*hidden, nn.Linear(WIDTHS[-1], CLASSES))


def _taught(old: Images, generator: torch.Generator) -> nn.Sequential:
    network = _network(old.inputs.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=OLD_RATE)
    for inputs, labels in minibatches(old.inputs, old.labels, OLD_ROWS, OLD_STEPS, generator):
        descend(cross_entropy(network(inputs), labels), optimizer)
    return network


def _encode(episodes: Episodes, images: Images, label: int, generator: torch.Generator) -> None:
    """Writes some of a class to the store."""
    of_class = (images.labels == label).nonzero().squeeze(1)
    chosen = images.of(of_class[torch.randperm(len(of_class), generator=generator)[:STORED]])
    episodes.write(chosen.inputs, chosen.labels)


def _told(
    network: nn.Sequential, new: Images, episodes: Episodes, budget: int, selection: Selection, seed: int
) -> nn.Sequential:
    """A copy that has learned the new class, with so many old experiences replayed beside each minibatch."""
    network = copy.deepcopy(network)
    terms = [Replay(episodes, budget, selection, online=False)] if budget else []
    consolidator = Consolidator(network, terms, new_share=ROWS / (ROWS + budget))
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    generator = torch.Generator().manual_seed(seed)  # the same minibatches, whatever is replayed
    for inputs, labels in minibatches(new.inputs, new.labels, ROWS, STEPS, generator):
        descend(consolidator.loss(cross_entropy(network(inputs), labels), inputs), optimizer)
        schedule.step()
    return network


@torch.no_grad()
def _recalls(network: nn.Module, test: Images) -> Float[Tensor, " classes"]:
    """The share of each digit that is recognised."""
    return _recalled(network(test.inputs), test)


def _recalled(answers: Float[Tensor, "images classes"], test: Images) -> Float[Tensor, " classes"]:
    right = (answers.argmax(1) == test.labels).double()
    shown = one_hot(test.labels, CLASSES).double()
    return shown.T @ right / shown.sum(0)


def _systems(network: nn.Module, episodes: Episodes, test: Images) -> dict[str, list[float]]:
    """The same of the store alone, of the network alone, and of both."""
    both = ComplementarySystems(network, episodes)
    columns = {}
    lesions: dict[str, list[System]] = {"store_only": ["network"], "cortex_only": ["store"], "both": []}
    for name, lesioned in lesions.items():
        with both.lesion(*lesioned):
            answers = torch.cat([both.answer(inputs, CLASSES) for inputs in test.inputs.split(ASKED)])
        columns[name] = _recalled(answers, test).tolist()
    return columns


def _summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The means over networks: of the new digit, its sibling, and all old ones."""

    def mean(*names: Any) -> Tensor:
        values = []
        for one in found:
            for name in names:
                one = one[name]
            values.append(one)
        return torch.tensor(values, dtype=torch.float64).mean(0)

    def old(recalls: Tensor) -> float:
        return recalls[torch.arange(CLASSES) != NEW].mean().item()

    before = mean("before")
    curves: dict[str, dict[str, dict[str, float]]] = {"new": {}, "sibling": {}, "old_drop": {}}
    for rule in RULES:
        of = {"0": mean("none")} | {str(budget): mean(rule, budget) for budget in BUDGETS}
        curves["new"][rule] = {budget: one[NEW].item() for budget, one in of.items()}
        curves["sibling"][rule] = {budget: one[SIBLING].item() for budget, one in of.items()}
        curves["old_drop"][rule] = {budget: old(before) - old(one) for budget, one in of.items()}
    alike, all_alike = str(BUDGET), str(TIMES * BUDGET)
    sibling, drop = curves["sibling"], curves["old_drop"]
    return {
        "sibling_without_replay": sibling["uniform"]["0"],
        "sibling_similar": sibling["similar"][alike],
        "sibling_uniform": sibling["uniform"][alike],
        "sibling_uniform_of_four_times": sibling["uniform"][all_alike],
        "sibling_beyond_four_times": sibling["similar"][alike] - sibling["uniform"][all_alike],
        "old_before": old(before),
        "old_drop_similar": drop["similar"][alike],
        "old_drop_uniform": drop["uniform"][alike],
        "old_drop_uniform_of_four_times": drop["uniform"][all_alike],
        "share_of_sibling_drawn": mean("drawn")[SIBLING].item(),
        "systems": {
            column: {"new": recalls[NEW].item(), "sibling": recalls[SIBLING].item(), "old": old(recalls)}
            for column, recalls in ((name, mean("systems", name)) for name in found[0]["systems"])
        },
        **curves,
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Recall of the sibling and of the new digit, and what the old ones have lost, by the budget."""
    from mnemos.report.drawing import FAINT, WITH, WITHOUT, drawing, label

    panels = {
        "sibling": "the sibling (4), %",
        "new": "the new digit (9), %",
        "old_drop": "lost of the old, points",
    }
    texts = {"uniform": (WITHOUT, "any"), "similar": (WITH, "similar")}
    with drawing(height=2.7, columns=3) as (figure, axes):
        for (name, title), panel in zip(panels.items(), axes, strict=True):
            for rule, (colour, text) in texts.items():
                shares = {
                    int(budget): 100 * share
                    for budget, share in measured[name][rule].items()
                    if budget != "0"
                }
                panel.plot(list(shares), list(shares.values()), color=colour, marker="o", markersize=3)
                if name == "old_drop":
                    panel.set_ylim(0)
                    label(panel, max(shares), shares[max(shares)], text, colour)
            panel.axvline(BUDGET, color=FAINT, linewidth=1.2)
            panel.set_xscale("log", base=2)
            panel.set_xticks(list(BUDGETS), [str(budget) for budget in BUDGETS])
            panel.set_title(title)
            panel.set_xlabel("replayed beside 16 new")
    return figure


STUDY = Study(
    name="similarity-weighted-replay",
    title="Replay of what resembles the new spares most of the rest (Saxena et al. 2022)",
    measure=measure,
    thresholds={
        "sibling_beyond_four_times": Threshold(">=", -0.02),
        "old_drop_similar": Threshold("<=", 0.02),
    },
    paper=[
        Figure(
            "old items that must be presented, beside interleaving all of them",
            "much fewer, at a similar accuracy",
            "Saxena, Shobe & McNaughton 2022, abstract",
        ),
    ],
    draw=draw,
)
