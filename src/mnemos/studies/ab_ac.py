"""Catastrophic interference: a network learns a second list of pairs and has lost the first.

McCloskey & Cohen 1989, "Catastrophic Interference in Connectionist Networks". The same twenty cues are
paired with responses B, and then, in another context, with responses C (Barnes & Underwood 1959). People who
have learned C to the end still know half of B; a network trained by backpropagation knows nothing of it. The
cure is that of McClelland, McNaughton & O'Reilly 1995: B lies in a fast store, and some of it is experienced
again beside every new pair.

Logistic units, squared error, one pair at a time, and a context that a list's cues share, as theirs. With
replay old and new count alike, at twice the rate: a new pair moves the weights as far as without.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

import mnemos
from mnemos.consolidation import Consolidator, Episodes, Replay
from mnemos.progress import Advance
from mnemos.studies.fit import descend
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.studies.systems import alone_and_together, recalled

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

CUES, CUE, CONTEXT, HIDDEN, RESPONSE = 20, 50, 20, 100, 50
RATE = 0.2
NETWORKS, FULL_NETWORKS = 10, 100
PASSES = 20  # through AC
MOST_PASSES = 200  # through AB, whose criterion is reached long before
REPLAYED = 4  # pairs of AB beside each of AC
KNOWN = 0.95  # of AC: learned to the end
AB, AC = 0, 1
FURTHER = 10  # passes through AB after its criterion


class Arm(NamedTuple):
    """A way to learn the second list."""

    room: int = 0  # for pairs of AB in the store; 0 is no store, and no replay
    further: int = 0  # passes through AB after its criterion


ARMS = {"plain": Arm(), "further": Arm(further=FURTHER), "replay": Arm(CUES), "half": Arm(CUES // 2)}


class Lists(NamedTuple):
    """AB and AC: the same cues, each list in a context of its own."""

    inputs: Float[Tensor, "lists cues inputs"]
    responses: Float[Tensor, "lists cues response"]

    def right(self, answers: Float[Tensor, "rows response"], number: int) -> Bool[Tensor, " rows"]:
        """Whether the nearest response of both lists is the right one of that list, cue by cue."""
        words = self.responses.flatten(0, 1)
        first = number * self.responses.shape[1]
        return torch.cdist(answers, words).argmin(1) == first + torch.arange(len(answers))


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    networks = FULL_NETWORKS if full else NETWORKS
    right: dict[str, list[Tensor]] = {arm: [] for arm in ARMS}
    stored: dict[str, list[Tensor]] = {arm: [] for arm in ARMS}
    for number in range(networks):
        advance(number / networks, f"network {number + 1} of {networks}")
        generator = torch.Generator().manual_seed(1000 * seed + number)
        torch.manual_seed(1000 * seed + number)  # the weights
        lists = two_lists(generator)
        taught = _taught(lists, generator)
        for name, arm in ARMS.items():
            scores, kept = _learned(lists, copy.deepcopy(taught), arm, generator)
            right[name].append(scores)
            stored[name].append(kept)
    return {"networks": networks} | _summary(
        {name: torch.stack(scores) for name, scores in right.items()},
        {name: torch.stack(kept) for name, kept in stored.items()},
    )


def two_lists(generator: torch.Generator) -> Lists:
    """Cues and contexts of random ±1, responses of random bits."""
    cues = torch.randint(2, (CUES, CUE), generator=generator).float() * 2 - 1
    contexts = torch.randint(2, (2, 1, CONTEXT), generator=generator).float() * 2 - 1
    responses = torch.randint(2, (2, CUES, RESPONSE), generator=generator).float()
    return Lists(torch.cat([cues.expand(2, -1, -1), contexts.expand(-1, CUES, -1)], 2), responses)


def _error(answers: Tensor, responses: Tensor) -> Tensor:
    """The sum of squares of each response, the mean over them."""
    return (answers - responses).square().sum(-1).mean()


def _taught(lists: Lists, generator: torch.Generator) -> nn.Sequential:
    """A network that knows AB."""
    inputs = lists.inputs.shape[-1]
    network = nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.Sigmoid(), nn.Linear(HIDDEN, RESPONSE), nn.Sigmoid()
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    for _ in range(MOST_PASSES):
        if _right(lists, network)[AB].all():
            break
        _pass(lists, AB, network, Consolidator(network, [], _error), optimizer, generator)
    return network


def _learned(
    lists: Lists, network: nn.Sequential, arm: Arm, generator: torch.Generator
) -> tuple[Bool[Tensor, "passes lists cues"], Bool[Tensor, "lists cues"]]:
    """Teaches AC: what the network answers rightly after every pass, and what the store does."""
    seed = int(torch.randint(2**31, (), generator=generator))
    episodes = Episodes(mnemos.open(":memory:", metric="cosine"), arm.room or None, seed=seed)
    terms = [Replay(episodes, REPLAYED, online=False)] if arm.room else []
    consolidator = Consolidator(network, terms, _error)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    for _ in range(arm.further):
        _pass(lists, AB, network, consolidator, optimizer, generator)
    consolidator.end_context([(lists.inputs[AB], lists.responses[AB])])
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE * (2 if terms else 1))
    scores = [_right(lists, network)]
    for _ in range(PASSES):
        _pass(lists, AC, network, consolidator, optimizer, generator)
        scores.append(_right(lists, network))
    stored = torch.zeros(2, CUES, dtype=torch.bool)
    if arm.room:
        answers, known = zip(*(recalled(episodes, inputs) for inputs in lists.inputs), strict=True)
        stored = torch.stack([lists.right(answers[number], number) & known[number] for number in (AB, AC)])
    return torch.stack(scores), stored


def _pass(
    lists: Lists,
    number: int,
    network: nn.Sequential,
    consolidator: Consolidator,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Every pair of a list once, one at a time."""
    for row in torch.randperm(CUES, generator=generator).split(1):
        inputs, responses = lists.inputs[number, row], lists.responses[number, row]
        descend(consolidator.loss(_error(network(inputs), responses), inputs), optimizer)


@torch.no_grad()
def _right(lists: Lists, network: nn.Sequential) -> Bool[Tensor, "lists cues"]:
    return torch.stack([lists.right(network(lists.inputs[number]), number) for number in (AB, AC)])


def _summary(
    right: Mapping[str, Bool[Tensor, "networks passes lists cues"]],
    stored: Mapping[str, Bool[Tensor, "networks lists cues"]],
) -> dict[str, Any]:
    """The lists once a network without a store has learned AC, and with replay after twice as many passes."""
    shares = {arm: scores.double().mean((0, 3)) for arm, scores in right.items()}
    at = {arm: _passes(shares[arm][:, AC]) for arm in ("plain", "further")}
    at |= dict.fromkeys(("replay", "half"), min(2 * at["plain"], PASSES))
    measured: dict[str, Any] = {f"passes_{arm}": passes for arm, passes in at.items()}
    measured |= {
        f"{name}_{arm}": shares[arm][at[arm], number].item()
        for arm in ARMS
        for name, number in (("ab", AB), ("ac", AC))
    }
    at_half, kept = right["half"][:, at["half"], AB], stored["half"][:, AB]
    measured["ab_half_stored"] = at_half[kept].double().mean().item()
    measured["ab_half_not_stored"] = at_half[~kept].double().mean().item()
    measured["systems"] = {
        arm: {
            name: alone_and_together(
                stored[arm][:, number].flatten().float(),
                right[arm][:, at[arm], number].flatten().float(),
                stored[arm][:, number].flatten(),
            )
            for name, number in (("ab", AB), ("ac", AC))
        }
        for arm in ARMS
    }
    return measured | {
        f"{name}_after_passes": {arm: dict(enumerate(shares[arm][:, number].tolist())) for arm in ARMS}
        for name, number in (("ab", AB), ("ac", AC))
    }


def _passes(known: Float[Tensor, " passes"]) -> int:
    """After how many AC is learned; all of them if it never is."""
    learned = (known >= KNOWN).nonzero()
    return int(learned[0]) if len(learned) else PASSES


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """The share of each list that is known, by the passes through the second one."""
    from mnemos.report.drawing import FAINT, INK, TUNED, WITH, WITHOUT, curve, drawing

    lines = {  # with how far the text is raised
        "replay": (WITH, "all of AB replayed", 0),
        "half": (TUNED, "half of AB replayed", 0),
        "further": (INK, f"none, AB learned\n{FURTHER} passes further", 22),
        "plain": (WITHOUT, "none replayed", 0),
    }
    with drawing(height=2.9, columns=2) as (figure, axes):
        for name, panel in zip(("ac", "ab"), axes, strict=True):
            for arm, (colour, text, raised) in lines.items():
                shares = measured[f"{name}_after_passes"][arm]
                curve(panel, shares, text if name == "ab" else "", colour, raised=raised)
            panel.axvline(measured["passes_plain"], color=FAINT, linewidth=1.2)
            panel.set_title(f"{name.upper()} known by the network, %")
            panel.set_xlabel("passes through AC")
            panel.set_ylim(-4, 104)
    return figure


STUDY = Study(
    name="ab-ac",
    title="A second list wipes out the first, unless that is replayed (McCloskey & Cohen 1989)",
    measure=measure,
    thresholds={
        "ac_plain": Threshold(">=", KNOWN),
        "ab_plain": Threshold("<=", 0.15),
        "ac_replay": Threshold(">=", KNOWN),
        "ab_replay": Threshold(">=", 0.90),
    },
    paper=[
        Figure("AB of the network once AC is learned", "none", "McCloskey & Cohen 1989, AB-AC lists"),
        Figure("AB of people once AC is learned", "about half", "Barnes & Underwood 1959"),
    ],
    draw=draw,
)
