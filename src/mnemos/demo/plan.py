"""What a run of the demo is given, and where its parts lie."""

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """One run of the demo.

    Args:
        folder: where everything goes; made if it is not there.
        seconds: of training.
        steps: of training at most, for a run that can be repeated exactly; None: what `seconds` allow.
        seed: of the division of the texts, the model, the training and what is chosen at random.
        vocabulary: tokens of the model, at least 256.
        width, layers: size of the model.
        phrases: how many are recalled, each in a process of its own.
    """

    folder: Path
    seconds: float = 120.0
    steps: int | None = None
    seed: int = 0
    vocabulary: int = 1024
    width: int = 128
    layers: int = 2
    phrases: int = 3

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def memory(self) -> Path:
        """The store with all of B, as the demo leaves it."""
        return self.folder / "memory"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    def fresh(self, name: str) -> Path:
        """A path below the folder where nothing is."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        return path
