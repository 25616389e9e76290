"""Few-shot episodes of Omniglot: handwritten characters whose names change from episode to episode.

Lake, Salakhutdinov & Tenenbaum 2015, "Human-level concept learning through probabilistic program induction"
(the data, MIT licence); Santoro et al. 2016, "Meta-Learning with Memory-Augmented Neural Networks", section 4
(the episodes). A character turned by 90, 180 or 270 degrees is a class of its own.
"""

import io
import zipfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mnemos.tasks.files import data_file
from mnemos.tasks.task import Batch, ClassTask

SMALL = "omniglot/images_background_small1.zip"  # five alphabets: 136 characters, each drawn by 20 people
SMALL_SHA256 = "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4"
SMALL_URL = "https://github.com/brendenlake/omniglot/raw/master/python/images_background_small1.zip"


class Characters(NamedTuple):
    """Drawings of classes to learn from, and of classes never seen; ink is 1, paper is 0."""

    train: Float[Tensor, "classes drawings height width"]
    test: Float[Tensor, "classes drawings height width"]


def characters(
    side: int = 14, *, test: int = 36, seed: int = 0, root: str | Path | None = None, download: bool = False
) -> Characters:
    """The characters of five alphabets, each in four turns, divided by character.

    Args:
        side: of a square image in pixels, at most 105; each is the mean of what it covers.
        test: how many of the 136 characters are kept from training.
        seed: which ones.
        root: a data folder that holds omniglot/images_background_small1.zip; the environment's
            MNEMOS_DATA if None.
        download: whether to fetch the file, 1.3 MB, if it is not there.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is another file.
    """
    file = data_file(SMALL, SMALL_SHA256, SMALL_URL, root, download=download)
    drawn = functional.adaptive_avg_pool2d(_drawings(file), side)
    if not 0 < test < len(drawn):
        raise ValueError(f"test must leave some of {len(drawn)} characters on either side, not {test}")
    order = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(seed))
    return Characters(_turned(drawn[order[test:]]), _turned(drawn[order[:test]]))


def _drawings(file: Path) -> Float[Tensor, "classes drawings 105 105"]:
    from PIL import Image  # comes with matplotlib, and takes a while to import

    drawn = defaultdict(list)
    with zipfile.ZipFile(file) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".png")):
            image = Image.open(io.BytesIO(archive.read(name))).convert("L")
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            drawn[name.rpartition("/")[0]].append((pixels == 0).view(image.height, image.width))
    return torch.stack([torch.stack(drawings) for drawings in drawn.values()]).float()


def _turned(drawn: Tensor) -> Tensor:
    return torch.cat([drawn.rot90(turns, (2, 3)) for turns in range(4)])


@final
@dataclass(frozen=True, eq=False)
class OmniglotEpisodes(ClassTask):
    """Every episode shows drawings of a few classes in random order, and asks which class each is.

    A class has a name, a number drawn anew for each episode, which is told one step too late:
    the input at t is the drawing x_t and the name of the one before, y_(t-1). So the first drawing of a
    class can only be guessed at, and the others be known by who has bound drawing and name.

    Args:
        drawings: of all classes to choose from.
        classes: in an episode.
        shots: drawings of each class in an episode.
        shift: pixels by which a drawing is moved at most, up or down and sideways.
        others: drawings of classes that are never learned, to be judged by; None means the same classes.
    """

    drawings: Float[Tensor, "all drawings height width"]
    classes: int = 5
    shots: int = 10
    shift: int = 0
    others: Float[Tensor, "unseen drawings height width"] | None = None

    @property
    def input_size(self) -> int:
        return self.drawings.shape[2] * self.drawings.shape[3] + self.classes

    @property
    def output_size(self) -> int:
        return self.classes

    def unseen(self) -> "OmniglotEpisodes":
        """Episodes of the other classes, as they were drawn."""
        if self.others is None:
            return self
        return replace(self, drawings=self.others, others=None, shift=0)

    def batch(self, rows: int, generator: torch.Generator) -> Batch:
        every, drawn = self.drawings.shape[:2]
        which = torch.rand(rows, every, generator=generator).argsort(1)[:, : self.classes]
        order = torch.rand(rows, self.classes * self.shots, generator=generator).argsort(1)
        names = order % self.classes
        shown = torch.rand(rows, self.classes, drawn, generator=generator).argsort(2)
        number = shown[torch.arange(rows).unsqueeze(1), names, order // self.classes]
        images = self.moved(self.drawings[which.gather(1, names), number], generator)
        told = functional.pad(functional.one_hot(names, self.classes)[:, :-1], (0, 0, 1, 0))
        scored = torch.ones_like(names, dtype=torch.bool)
        return Batch(torch.cat([images.flatten(2), told.to(images)], dim=2), names, scored, scored)

    def moved(
        self, images: Float[Tensor, "rows drawings height width"], generator: torch.Generator
    ) -> Float[Tensor, "rows drawings height width"]:
        """Each drawing moved at random, by up to `shift` pixels either way."""
        if not self.shift:
            return images
        rows, time, height, width = images.shape
        wide = functional.pad(images, [self.shift] * 4)
        down, right = torch.randint(2 * self.shift + 1, (2, rows, time, 1), generator=generator)
        wide = wide.gather(2, (down + torch.arange(height)).unsqueeze(3).expand(-1, -1, -1, wide.shape[3]))
        return wide.gather(3, (right + torch.arange(width)).unsqueeze(2).expand(-1, -1, height, -1))


def omniglot_episodes(
    classes: int = 5, shots: int = 10, side: int = 14, shift: int = 1, seed: int = 0
) -> OmniglotEpisodes:
    """Episodes of the small archive, judged by characters that are kept from training; see `characters`."""
    drawn = characters(side, seed=seed, download=True)
    return OmniglotEpisodes(drawn.train, classes, shots, shift, drawn.test)


def instances(names: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """For the how manieth time a class is seen at each step, from 1."""
    seen = functional.one_hot(names).cumsum(1)
    return seen.gather(2, names.unsqueeze(2)).squeeze(2)
