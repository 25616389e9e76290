"""Two agents walk about a grid, told one statement at a time: where is one of them at the end?

The world model of Henaff et al. 2017. First it is told where each agent is and which way it
faces; then at every step one of them turns to face a direction, or moves some squares ahead without leaving
the grid. No statement says where an agent got to: whoever answers must have followed it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mnemos.tasks.task import Batch, ClassTask

AGENTS, DIRECTIONS = 2, 4
AHEAD = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])  # of north, south, east and west


class Stories(NamedTuple):
    """What is told, and where the agents are after each statement, from the first on."""

    statements: Float[Tensor, "batch time words"]
    squares: Int[Tensor, "batch time agents"]


@dataclass(frozen=True)
class WorldModel(ClassTask):
    """Statements as sets of words, each of which has one meaning; the last step asks after an agent.

    The words are the two agents, the columns, the rows, the four directions, the numbers of squares, and the
    question mark. Answers are the squares of the grid.

    Args:
        statements: T, at least 5: two say where the agents are, two which way they face.
        shortest: where it is given, a batch has any number of statements from this to `statements`.
        grid: squares in a row, and in a column.
        farthest: squares that an agent moves at once, at most.
    """

    statements: int = 20
    shortest: int | None = None
    grid: int = 10
    farthest: int = 5

    def __post_init__(self) -> None:
        least = self.statements if self.shortest is None else self.shortest
        if not 5 <= least <= self.statements:
            raise ValueError(f"statements must be at least 5 and shortest, not {self.statements} and {least}")

    @property
    def input_size(self) -> int:
        return AGENTS + 2 * self.grid + DIRECTIONS + self.farthest + 1

    @property
    def output_size(self) -> int:
        return self.grid**2

    def batch(self, rows: int, generator: torch.Generator) -> Batch:
        """All rows have the same number of statements, and then a question."""
        low = self.statements if self.shortest is None else self.shortest
        time = int(torch.randint(low, self.statements + 1, (), generator=generator))
        told = self.stories(rows, time, generator)
        asked = torch.randint(AGENTS, (rows,), generator=generator)
        question = self.questions[asked].unsqueeze(1)
        targets = torch.zeros(rows, time + 1, dtype=torch.int64)
        targets[:, -1] = told.squares[torch.arange(rows), -1, asked]
        scored = torch.zeros(rows, time + 1, dtype=torch.bool)
        scored[:, -1] = True
        return Batch(torch.cat([told.statements, question], 1), targets, scored, torch.ones_like(scored))

    @property
    def questions(self) -> Float[Tensor, "agents words"]:
        """The words that ask after each of the agents."""
        agents = torch.arange(AGENTS)
        return self._words(agents, torch.full_like(agents, self.input_size - 1))

    def stories(self, rows: int, statements: int, generator: torch.Generator) -> Stories:
        """Stories of so many statements without a question, and what is true after each of them."""
        place = torch.randint(self.grid, (rows, AGENTS, 2), generator=generator)
        facing = torch.randint(DIRECTIONS, (rows, AGENTS), generator=generator)
        steps = [self._said(agent, at=place[:, agent]) for agent in range(AGENTS)]
        steps += [self._said(agent, facing=facing[:, agent]) for agent in range(AGENTS)]
        places = [place] * len(steps)
        for _ in range(statements - len(steps)):
            step, place, facing = self._acted(place, facing, generator)
            steps.append(step)
            places.append(place)
        columns, lines = torch.stack(places, dim=1).unbind(-1)
        return Stories(torch.stack(steps, dim=1), columns * self.grid + lines)

    def _said(self, agent: int, at: Tensor | None = None, facing: Tensor | None = None) -> Tensor:
        """That an agent is somewhere, or faces somewhere."""
        if at is not None:
            who = torch.full_like(at[:, 0], agent)
            return self._words(who, AGENTS + at[:, 0], AGENTS + self.grid + at[:, 1])
        assert facing is not None
        return self._words(torch.full_like(facing, agent), AGENTS + 2 * self.grid + facing)

    def _acted(
        self,
        place: Int[Tensor, "rows agents 2"],
        facing: Int[Tensor, "rows agents"],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One agent of every row turns, or moves: the statement, and where all are and face then."""
        rows = torch.arange(len(place))
        who = torch.randint(AGENTS, (len(place),), generator=generator)
        turned = torch.randint(DIRECTIONS, who.shape, generator=generator)
        ahead = AHEAD[facing[rows, who]]
        at = place[rows, who]
        # Squares between the agent and the edge that it faces.
        room = torch.where(ahead > 0, self.grid - 1 - at, torch.where(ahead < 0, at, self.grid)).amin(1)
        room = room.clamp(max=self.farthest)
        far = 1 + (torch.rand(who.shape, generator=generator) * room).long().clamp(max=self.farthest - 1)
        turns = (torch.rand(who.shape, generator=generator) < 0.5) | (room == 0)
        said = AGENTS + 2 * self.grid + torch.where(turns, turned, DIRECTIONS + far - 1)
        place, facing = place.clone(), facing.clone()
        place[rows, who] = torch.where(turns.unsqueeze(1), at, at + ahead * far.unsqueeze(1))
        facing[rows, who] = torch.where(turns, turned, facing[rows, who])
        return self._words(who, said), place, facing

    def _words(self, *numbers: Int[Tensor, " rows"]) -> Float[Tensor, "rows words"]:
        return sum((functional.one_hot(word, self.input_size).float() for word in numbers), torch.tensor(0.0))
