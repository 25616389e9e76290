"""A key-value memory network answers from facts that it was never asked about before.

After Miller et al. 2016, with a generated knowledge base of 1,000 entities and 4 relations in the place of
WikiMovies. Questions after a quarter of the facts are kept for the test: what is learned is how to ask, and
not what is so. The control has the same network and no facts.

One entity in twenty answers none of the 3,000 questions of the training, (1 - 1/1,000)^3,000, and nothing has
taught the network what it looks like as an answer. So about .95 is to be expected where every fact is found.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from mnemos.models.key_value_network import KeyValueNetwork
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.knowledge_base import KnowledgeBase

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

ROWS = 64
SOURCE = "Miller et al. 2016, table 2, from memory"


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    entities = 10_000 if full else 1_000
    base = KnowledgeBase(entities=entities, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    facts = torch.randperm(entities * base.relations, generator=generator)
    kept, asked = facts.split([len(facts) // 4, len(facts) - len(facts) // 4])
    measured: dict[str, Any] = {"facts": len(facts), "asked_in_training": len(asked)}
    steps = 15_000 if full else 1_500
    for name, told, start, end in (("", True, 0.0, 0.6), ("_without_facts", False, 0.6, 1.0)):
        torch.manual_seed(seed)
        network = KeyValueNetwork(base.vocabulary_size, slots=base.slots)

        def loss(step: int, network: KeyValueNetwork = network, told: bool = told) -> Tensor:
            rows = asked[torch.randint(len(asked), (ROWS,), generator=generator)]
            logits, answers, _ = _answered(network, base, rows, told, generator)
            return functional.cross_entropy(logits, answers)

        fit(network, loss, steps, learning_rate=5e-3, advance=between(advance, start, end))
        with torch.no_grad():
            logits, answers, looked = _answered(network, base, kept, told, generator)
        hits = (logits.argmax(-1) == answers).double().mean().item()
        measured |= {f"hits_at_1{name}": hits}
        if told:
            measured["weight_on_the_fact_by_hop"] = looked
    return measured


def _answered(
    network: KeyValueNetwork, base: KnowledgeBase, facts: Tensor, told: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor, list[float]]:
    """(Logits, answers, the mean weight of the fact that answers, in each hop)."""
    asked = base.ask(facts, generator)
    keys = asked.keys if told else torch.zeros_like(asked.keys)
    answer = network.ask(network.tell(keys, asked.values), asked.questions)
    phrases = 1 + base.entities + 2 * base.relations
    relation = 1 + base.entities + (asked.questions[:, 1] - phrases) % base.relations
    fitting = (asked.keys[:, :, 1] == relation.unsqueeze(1)).unsqueeze(1)
    looked = answer.weights.detach() * fitting
    return answer.logits, asked.answers, looked.sum(-1).mean(0).tolist()


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """How often the answer is right, with the facts and without, and where the hops look."""
    from mnemos.report.drawing import WITH, WITHOUT, drawing

    shares = {
        "hits@1, facts told": (measured["hits_at_1"], WITH),
        "hits@1, no facts": (measured["hits_at_1_without_facts"], WITHOUT),
        **{
            f"weight on the fact, hop {hop}": (weight, WITH)
            for hop, weight in enumerate(measured["weight_on_the_fact_by_hop"], 1)
        },
    }
    with drawing(height=1.9) as (figure, [axes]):
        for place, (share, colour) in enumerate(shares.values()):
            axes.barh(-place, 100 * share, 0.6, color=colour)
            axes.text(100 * share + 1, -place, f"{100 * share:.1f}", va="center", fontsize=8)
        axes.set_yticks([-place for place in range(len(shares))], list(shares))
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 108)
        axes.set_xlabel("%, of facts never asked about in training")
    return figure


STUDY = Study(
    name="kv-memnn",
    title="A key-value memory network answers from facts (Miller et al. 2016)",
    measure=measure,
    thresholds={"hits_at_1": Threshold(">=", 0.95), "hits_at_1_without_facts": Threshold("<=", 0.1)},
    paper=[
        Figure("hits@1 on WikiMovies from its knowledge base", 0.939, SOURCE),
        Figure("the same, reading Wikipedia", 0.762, SOURCE),
    ],
    draw=draw,
)
