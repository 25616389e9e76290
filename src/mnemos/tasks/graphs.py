"""Graphs with labelled edges, drawn at random or cut out of London's Underground."""

import csv
import io
import random
import zipfile
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, final

from mnemos.tasks.files import data_file
from mnemos.tasks.sequences import Range, check_ranges

UNDERGROUND = "graph/london_underground.zip"  # below a data folder
UNDERGROUND_SHA256 = "a2f4d6b446ec68e522801099099088c019049608b89b1b4723f15013ea5eba05"
UNDERGROUND_ADDRESS = "https://raw.githubusercontent.com/nicola/tubemaps/master/datasets"  # file by file


class Edge(NamedTuple):
    """One way from a place to another."""

    source: int
    destination: int
    label: int  # no two edges of a place have the same


@dataclass(frozen=True)
class Graph:
    """Directed edges between places."""

    edges: tuple[Edge, ...]

    @cached_property
    def ways(self) -> dict[int, list[Edge]]:
        """The edges that leave each place."""
        found: dict[int, list[Edge]] = {edge.source: [] for edge in self.edges}
        for edge in self.edges:
            found[edge.source].append(edge)
        return found

    def shortest(self, start: int, end: int) -> list[list[Edge]]:
        """All shortest ways between two places; none if there is no way."""
        ways: dict[int, list[list[Edge]]] = {start: [[]]}
        queue = deque([start])
        while queue:
            place = queue.popleft()
            length = len(ways[place][0])
            if place == end:
                return ways[place]
            for edge in self.ways.get(place, []):
                known = ways.get(edge.destination)
                if known is None:
                    queue.append(edge.destination)
                    known = ways[edge.destination] = []
                elif len(known[0]) != length + 1:
                    continue
                known += [[*way, edge] for way in ways[place]]
        return []


class Graphs(ABC):
    """A source of graphs; a concrete one is a frozen dataclass."""

    @abstractmethod
    def draw(self, chance: random.Random) -> Graph:
        """One graph; the same chance gives the same one."""


@final
@dataclass(frozen=True)
class RandomGraphs(Graphs):
    """Places at random in a square, each with edges to the nearest others.

    Args:
        places: how many there are, from 2.
        degree: edges that leave each.
        labels: to choose from.
    """

    places: Range = (4, 6)
    degree: Range = (2, 3)
    labels: int = 10

    def __post_init__(self) -> None:
        check_ranges(self)
        if not (self.places[0] > self.degree[1] and self.labels >= self.degree[1]):
            raise ValueError(
                "degree must be below places and at most labels, "
                f"not {self.degree} of {self.places} and {self.labels}"
            )

    def draw(self, chance: random.Random) -> Graph:
        where = [(chance.random(), chance.random()) for _ in range(chance.randint(*self.places))]
        edges = []
        for source, (x, y) in enumerate(where):
            others = [place for place in range(len(where)) if place != source]
            others.sort(key=lambda place: (where[place][0] - x) ** 2 + (where[place][1] - y) ** 2)
            near = others[: chance.randint(*self.degree)]
            labels = chance.sample(range(self.labels), len(near))
            edges += [Edge(source, place, label) for place, label in zip(near, labels, strict=True)]
        return Graph(tuple(edges))


@final
@dataclass(frozen=True)
class UndergroundGraphs(Graphs):
    """Connected parts of London's Underground; an edge's label is its line.

    A line leaves a station in two directions: the second has a label of its own, so that a station and a
    label say where one comes to. The paper's part of the map is a fixed one.

    Args:
        map: of `underground`.
        places: stations of a part.
    """

    map: Graph
    places: Range = (4, 6)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.places[0] < 2:
            raise ValueError(f"places must be at least 2, or there is no edge, not {self.places}")

    def draw(self, chance: random.Random) -> Graph:
        count = chance.randint(*self.places)
        chosen = [chance.choice(sorted(self.map.ways))]
        border = {edge.destination for edge in self.map.ways[chosen[0]]}
        while border and len(chosen) < count:
            chosen.append(chance.choice(sorted(border)))
            border |= {edge.destination for edge in self.map.ways[chosen[-1]]}
            border -= set(chosen)
        return Graph(tuple(edge for edge in self.map.edges if {edge.source, edge.destination} <= set(chosen)))


def underground(root: str | Path | None = None) -> tuple[Graph, dict[int, str]]:
    """London's Underground, both directions of every connection; and the names of its stations.

    Args:
        root: a data folder that holds `UNDERGROUND`; the environment's MNEMOS_DATA if None.

    Raises:
        FileNotFoundError: no folder, or no such file in it. ValueError: it is another file.
    """
    archive = data_file(UNDERGROUND, UNDERGROUND_SHA256, UNDERGROUND_ADDRESS, root)
    with zipfile.ZipFile(archive) as content:
        connections, stations = (
            list(csv.DictReader(io.StringIO(content.read(f"london/london.{name}.csv").decode())))
            for name in ("connections", "stations")
        )
    joined = {(int(row["station1"]), int(row["station2"]), int(row["line"])) for row in connections}
    joined |= {(two, one, line) for one, two, line in joined}
    edges, directions = [], dict[tuple[int, int], int]()
    for source, destination, line in sorted(joined):
        direction = directions[source, line] = directions.get((source, line), -1) + 1
        edges.append(
            Edge(source, destination, 8 * line + direction)
        )  # at a fork a line leaves in more than two
    return Graph(tuple(edges)), {int(row["id"]): row["name"] for row in stations}
