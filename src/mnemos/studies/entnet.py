"""The recurrent entity network follows two agents about a grid.

Henaff et al. 2017, the world model: a network is told where two agents are, which way they turn and how far
they walk, and is asked where they are. In the paper it is asked once, after the last statement. Here it
learns from questions about both agents after every second statement from the fourth on, which is to learn
from stories of many lengths at once; it is tested as in the paper. The control, an LSTM of more parameters in
the place of the entities, is taught and asked in the same way.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.entity import EntNet, EntNetState
from mnemos.memories.recurrent import Recurrent
from mnemos.models.entity import EntityNetwork
from mnemos.progress import Advance, between
from mnemos.studies.entnet_babi import babi_alone
from mnemos.studies.fit import fit
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.world_model import WorldModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LENGTHS = (8, 14, 20, 20, 20, 20)  # statements in a story of each sixth of the training
TESTED = (10, 20, 30, 40)
TAUGHT = slice(3, None, 2)  # after which statements it asks: by the fourth, all is told
LAST = slice(-1, None)
WIDTH, SLOTS, HIDDEN = 64, 2, 100
STEPS, ROWS, RATE = 12_000, 64, 4e-3
DRAWN = 20  # batches that are drawn at once


class Follower(nn.Module):
    """Statements and questions as sums of their words, and the entity network."""

    def __init__(self, words: int, answers: int) -> None:
        super().__init__()
        self.words, self.asked = (nn.Linear(words, WIDTH, bias=False) for _ in range(2))
        for embedding in (self.words, self.asked):
            nn.init.normal_(embedding.weight, std=0.3)
        self.network = EntityNetwork(EntNet(WIDTH, SLOTS), answers)

    def forward(
        self,
        statements: Float[Tensor, "batch time words"],
        questions: Float[Tensor, "asked words"],
        after: slice,
    ) -> Float[Tensor, "batch times asked answers"]:
        """The answers to all questions after each of the statements that `after` picks."""
        known = self.network.follow(self.words(statements))[:, after]
        asked = self.asked(questions).expand(known.shape[0] * known.shape[1], -1, -1)
        answers = self.network.ask(EntNetState(known.flatten(0, 1)), asked)
        return answers.unflatten(0, known.shape[:2])


class Reader(nn.Module):
    """The control: R φ(q + H h) as in the entity network, with h the hidden state of an LSTM."""

    def __init__(self, words: int, answers: int) -> None:
        super().__init__()
        self.memory = Recurrent(words, HIDDEN, longest_dependency=LENGTHS[-1])
        self.asked = nn.Linear(words, WIDTH, bias=False)
        self.read = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.output = nn.Sequential(nn.PReLU(), nn.Linear(WIDTH, answers))

    def forward(
        self,
        statements: Float[Tensor, "batch time words"],
        questions: Float[Tensor, "asked words"],
        after: slice,
    ) -> Float[Tensor, "batch times asked answers"]:
        """The answers to all questions after each of the statements that `after` picks."""
        found = self.read(self.memory(statements)[0][:, after]).unsqueeze(2)
        return self.output(self.asked(questions) + found)


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    share = 0.02 if full else 1.0
    ways = (("entnet", Follower, 0.0, 0.7), ("lstm", Reader, 0.7, 1.0))
    for name, build, start, end in ways:
        errors, parameters = _taught(build, seed, between(advance, share * start, share * end))
        measured |= {f"{name}_error_at_{time}": error for time, error in errors.items()}
        measured[f"{name}_parameters"] = parameters
    return measured | (babi_alone(seed, between(advance, share, 1.0)) if full else {})


def _taught(
    build: Callable[[int, int], nn.Module], seed: int, advance: Advance
) -> tuple[dict[int, float], int]:
    """(Errors by number of statements, parameters)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    task = WorldModel()
    network = build(task.input_size, task.output_size)
    questions = task.questions
    drawn: list[tuple[Tensor, Tensor]] = []

    def loss(step: int) -> Tensor:
        if not drawn:
            stories = task.stories(ROWS * DRAWN, LENGTHS[len(LENGTHS) * step // STEPS], generator)
            drawn.extend(zip(*(part.split(ROWS) for part in stories), strict=True))
        statements, squares = drawn.pop()
        answers = network(statements, questions, TAUGHT)
        return functional.cross_entropy(answers.flatten(0, 2), squares[:, TAUGHT].flatten())

    fit(network, loss, STEPS, learning_rate=RATE, advance=advance)
    errors = {time: _error(network, task, time, generator) for time in TESTED}
    return errors, sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def _error(network: nn.Module, task: WorldModel, time: int, generator: torch.Generator) -> float:
    """The share of wrong answers about both agents at the end of 2,000 stories that were never told."""
    statements, squares = task.stories(2000, time, generator)
    answers = network(statements, task.questions, LAST).argmax(-1)
    return (answers != squares[:, LAST]).double().mean().item()


def draw(measured: Mapping[str, Any]) -> "Drawing":
    """Errors by the number of statements."""
    from mnemos.report.drawing import FAINT, WITH, WITHOUT, drawing, label

    with drawing(height=2.6) as (figure, [axes]):
        axes.axvspan(4, LENGTHS[-1], color=FAINT, alpha=0.4, linewidth=0)
        axes.annotate("taught", (4, 96), (4, 0), textcoords="offset points", va="top")
        for name, colour, text in (("entnet", WITH, "entity network"), ("lstm", WITHOUT, "LSTM")):
            errors = [100 * measured[f"{name}_error_at_{time}"] for time in TESTED]
            axes.plot(TESTED, errors, color=colour, marker="o", markersize=3.5)
            label(axes, TESTED[-1], errors[-1], text, colour)
        axes.set_ylim(-4, 104)
        axes.set_xlabel("statements")
        axes.set_ylabel("wrong answers, %")
    return figure


STUDY = Study(
    name="entnet",
    title="A recurrent entity network tracks where two agents are (Henaff et al. 2017)",
    measure=measure,
    thresholds={
        "entnet_error_at_10": Threshold("<=", 0.01),
        "entnet_error_at_20": Threshold("<=", 0.01),
        "lstm_error_at_20": Threshold(">", 0.05),
    },
    paper=[
        Figure("EntNet, error at 10, 20 and 40 statements", "0, 0, 0", "Henaff et al. 2017, table 1"),
        Figure("LSTM, the same", "0, .157, .226", "Henaff et al. 2017, table 1"),
        Figure("MemN2N, the same", ".09, .633, .896", "Henaff et al. 2017, table 1"),
        Figure(
            "EntNet learned on up to 20, at 20, 30, … 80",
            "0, 0, 0, .01, .03, .05, .08",
            "Henaff et al. 2017",
        ),
    ],
    draw=draw,
)
