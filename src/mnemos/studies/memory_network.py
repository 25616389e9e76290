"""The strongly supervised memory network on bAbI's tasks of one and of two supporting facts.

Weston, Chopra & Bordes 2015, with 1,000 questions of each task, and told which facts support each answer.
What is measured is whether it finds them in stories that it has not seen, and whether it answers. The control
answers from the question alone.
"""

from typing import Any

import torch

from mnemos.models.memory_network import MemoryNetwork
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.babi import Questions, Story, babi, encode, hold_out, vocabulary

SLOTS = 90  # more than any story of the two tasks has sentences
ROWS = 32


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for task, start in ((1, 0.0), (2, 0.3)):
        learn, _ = hold_out(babi([task], download=True), seed=seed)
        test = babi([task], "test", download=True)
        words = vocabulary(learn)
        learned, tested = encode(learn, words, SLOTS), encode(test, words, SLOTS)
        for name, hops in ((f"task_{task}", task), (f"task_{task}_question_alone", 0)):
            torch.manual_seed(seed)
            network = MemoryNetwork(len(words), hops=hops)
            facts = _facts(learn)[:, :hops]
            generator = torch.Generator().manual_seed(seed)

            def loss(
                step: int,
                network: MemoryNetwork = network,
                learned: Questions = learned,
                facts: torch.Tensor = facts,
                generator: torch.Generator = generator,
            ) -> torch.Tensor:
                rows = torch.randint(len(facts), (ROWS,), generator=generator)
                return network.loss(learned.pick(rows), facts[rows])

            steps = (4_000 if full else 1_000) if hops else 300
            fit(network, loss, steps, learning_rate=1e-2, advance=between(advance, start, start + 0.3))
            with torch.no_grad():
                response = network(tested.sentences, tested.told, tested.questions)
            wrong = response.logits.argmax(1) != tested.answers
            measured[f"error_of_{name}"] = wrong.double().mean().item()
            if hops:
                found = (response.facts == _facts(test)).all(1)
                measured[f"facts_found_of_{name}"] = found.double().mean().item()
    return measured


def _facts(stories: list[Story]) -> torch.Tensor:
    """The slots of the supporting facts of every question, in the order in which the file names them."""
    return torch.tensor([question.supporting for story in stories for question in story.questions])


STUDY = Study(
    name="memory-network",
    title="A memory network finds the facts that support an answer (Weston et al. 2015)",
    measure=measure,
    thresholds={
        "error_of_task_1": Threshold("<=", 0.02),
        "facts_found_of_task_1": Threshold(">=", 0.98),
        "error_of_task_2": Threshold("<=", 0.1),
        "facts_found_of_task_2": Threshold(">=", 0.9),
    },
    paper=[
        Figure("mean error over the 20 tasks, strongly supervised, 1k", 0.067, "Weston et al. 2015, bAbI"),
        Figure("error of tasks 1 and 2", "0, 0", "Weston et al. 2015, bAbI, table 3"),
    ],
)
