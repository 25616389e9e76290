"""Relations that were never lived through: from A to B and from B to C follows A to C.

Every A is met once with a B, and every B, another time, with a C. Two ways have been proposed in which the
third relation comes about. Replay interleaves both episodes, and where the network represents B in both
alike, A and C become alike, too (McClelland, McNaughton & O'Reilly 1995). Or the store is read recurrently:
what one episode answers is the cue of the next, and what follows is replayed as if it had been an episode
(Kumaran & McClelland 2012, "Generalization through the recurrent interaction of episodic memories";
`consolidation.chained`).

Items are one-hot, so that no input resembles another, and A never stands beside C in the store. Overlap
comes from the network, one table of items for cues and answers, or from the episodes, each of whose parts
brings back the whole: without either a network of layers learns both links to the end, and knows nothing of
the third.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

import mnemos
from mnemos.consolidation import ComplementarySystems, Episodes, Phase, Sleep, chained
from mnemos.consolidation.complementary import System
from mnemos.consolidation.sleep import from_store
from mnemos.progress import Advance
from mnemos.studies.arbitrary_memories import COLUMNS, together
from mnemos.studies.study import Figure, Study, Threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

TRIADS = 20
ITEMS = 3 * TRIADS
CHANCE = 1 / TRIADS  # of the Cs
HIDDEN = 40
ASKED_AT = (0, 25, 50, 100, 200)  # steps of sleep
ROWS = 20  # experiences in a step
RATE = 1e-2  # Adam's
NETWORKS, FULL_NETWORKS = 10, 50


@final
class OneTable(nn.Module):
    """Cues and answers have the same vectors: from i to j by their inner product."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Parameter(0.1 * torch.randn(ITEMS, HIDDEN))

    def forward(self, inputs: Float[Tensor, "rows items"]) -> Float[Tensor, "rows items"]:
        return inputs @ self.items @ self.items.mT


def layers() -> nn.Module:
    """Cues and answers have vectors of their own."""
    return nn.Sequential(nn.Linear(ITEMS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, ITEMS))


class Arm(NamedTuple):
    network: Callable[[], nn.Module]
    whole: bool = False  # whether each part of an episode brings back all of it, or the first the second
    chains: bool = False  # whether the store is read recurrently, too, for half of what is replayed


ARMS = {
    "table": Arm(OneTable),
    "layers": Arm(layers),
    "layers_whole": Arm(layers, whole=True),
    "layers_chained": Arm(layers, chains=True),
}
INTEGRATE = ("table", "layers_whole", "layers_chained")


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    networks = FULL_NETWORKS if full else NETWORKS
    arms: dict[str, dict[str, Any]] = {}
    for place, (name, arm) in enumerate(ARMS.items()):
        for shuffled in (False, True):
            found = []
            for number in range(networks):
                advance((place + number / networks) / len(ARMS), f"{name}, network {number + 1}")
                found.append(slept(1000 * seed + number, arm, shuffled))
            arms[f"{name}_shuffled" if shuffled else name] = _mean(found)
    last = str(ASKED_AT[-1])
    return {
        "networks": networks,
        "chance": CHANCE,
        "before_sleep": max(arm["ac"]["0"][column] for arm in arms.values() for column in COLUMNS),
        **{f"after_sleep_{name}": arms[name]["ac"][last]["network_only"] for name in ARMS},
        "links_after_sleep": min(
            arms[name][link][last]["network_only"] for name in ARMS for link in ("ab", "bc")
        ),
        "shuffled": max(arms[f"{name}_shuffled"]["ac"][last]["network_only"] for name in INTEGRATE),
        "arms": arms,
    }


def lived(whole: bool, shuffled: bool) -> Episodes:
    """The store after both days: every A with its B, and every B, or another one, with the C."""
    episodes = Episodes(mnemos.open(":memory:", metric="euclidean"))
    first, second, third = torch.arange(ITEMS).split(TRIADS)
    for one, other in ((first, second), (second.roll(1) if shuffled else second, third)):
        cues, answers = ((one, other, one, other), (other, one, one, other)) if whole else ((one,), (other,))
        episodes.write(functional.one_hot(torch.cat(cues), ITEMS).float(), torch.cat(answers))
    return episodes


def slept(seed: int, arm: Arm, shuffled: bool) -> dict[str, dict[str, dict[str, float]]]:
    """One network and one store, asked again and again in a night.

    Returns:
        Of each relation, and by the steps of sleep, the share of answers that are right in each column. Of
        the Bs, or the Cs, the likeliest counts. `ac_store_read_again` is from A to C where the store answers
        its own answer.
    """
    torch.manual_seed(seed)
    network, episodes = arm.network(), lived(arm.whole, shuffled)
    sources = [from_store(episodes)]
    if arm.chains:
        sources.append(chained(episodes, lambda items: functional.one_hot(items, ITEMS).float()))
    night = Phase("night", ASKED_AT[-1], sources)
    sleep = Sleep(network, torch.optim.Adam(network.parameters(), lr=RATE), [night], rows=ROWS, seed=seed)
    systems = together(network, episodes)
    relations: dict[str, dict[str, dict[str, float]]] = {"ab": {}, "bc": {}, "ac": {}}
    first, second, third = torch.arange(ITEMS).split(TRIADS)
    for steps in ASKED_AT:
        sleep.run(until=steps)
        for name, cues, answers in (("ab", first, second), ("bc", second, third), ("ac", first, third)):
            relations[name][str(steps)] = {
                column: _right(_asked(systems, lesioned), cues, answers)
                for column, lesioned in COLUMNS.items()
            }
    store = _asked(systems, COLUMNS["store_only"])
    relations["ac_store_read_again"] = {"0": {"store_only": _right(store @ store, first, third)}}
    return relations


def _asked(systems: ComplementarySystems, lesioned: tuple[System, ...]) -> Float[Tensor, "items items"]:
    """The probability of every item as an answer to every item."""
    with systems.lesion(*lesioned):
        return systems.answer(torch.eye(ITEMS), ITEMS)


def _right(chances: Tensor, cues: Int[Tensor, " rows"], answers: Int[Tensor, " rows"]) -> float:
    """How often the likeliest of the answers is the right one; of equally likely ones each counts in part."""
    among = chances[cues][:, answers]
    best = among == among.max(1, keepdim=True).values
    return (best.diagonal() / best.sum(1)).double().mean().item()


def _mean(found: list[dict[str, dict[str, dict[str, float]]]]) -> dict[str, Any]:
    return {
        relation: {
            steps: {
                column: sum(one[relation][steps][column] for one in found) / len(found) for column in columns
            }
            for steps, columns in by_steps.items()
        }
        for relation, by_steps in found[0].items()
    }


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """The network's answers from A to C in the course of a night, and those with shuffled links."""
    from mnemos.report.drawing import FAINT, TUNED, WITH, WITHOUT, drawing, label

    named = {
        "table": (TUNED, "one table"),
        "layers_chained": (WITH, "layers, chained replay"),
        "layers_whole": (WITH, "layers, whole episodes"),
        "layers": (WITHOUT, "layers"),
    }
    with drawing(height=3.0) as (figure, [axes]):
        axes.axhline(100 * measured["chance"], color=FAINT, linewidth=1.2)
        for place, (name, (colour, text)) in enumerate(named.items()):
            dashes = "--" if name == "layers_chained" else "-"
            for arm, width in ((f"{name}_shuffled", 0.7), (name, 1.6)):
                answers = measured["arms"][arm]["ac"]
                steps = [int(one) for one in answers]
                shares = [100 * columns["network_only"] for columns in answers.values()]
                axes.plot(steps, shares, color=colour, linewidth=width, linestyle=dashes)
            label(axes, steps[-1], shares[-1], text, colour, 12 * (1 - place) if name != "layers" else 0)
        axes.set_title("from A to C, the network alone (thin: links shuffled)")
        axes.set_xlabel("steps of sleep")
        axes.set_ylabel("right, %")
        axes.set_ylim(-4, 112)
    return figure


STUDY = Study(
    name="integration",
    title="From A to B and B to C follows A to C, after sleep (Kumaran & McClelland 2012)",
    measure=measure,
    thresholds={
        "before_sleep": Threshold("<=", CHANCE + 0.1),
        **{f"after_sleep_{name}": Threshold(">=", 0.8) for name in INTEGRATE},
        "after_sleep_layers": Threshold("<=", CHANCE + 0.1),
        "links_after_sleep": Threshold(">=", 0.95),
        "shuffled": Threshold("<=", 0.1),
    },
    paper=[
        Figure(
            "associative inference in a model that reads its episodes recurrently",
            "emerges without any experience of the pair",
            "Kumaran & McClelland 2012",
        )
    ],
    draw=draw,
)
