"""Training of small language models, with Lightning."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnemos.models.checkpoint import LanguageModel
from mnemos.models.transformer import Transformer
from mnemos.tasks.text import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to train; whichever of `steps` and `seconds` is reached first ends it."""

    steps: int | None = None
    seconds: float | None = None
    batch_size: int = 16
    context: int = 256  # tokens per sample
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    seed: int = 0


def train_language_model(
    model: Transformer,
    tokenizer: "Tokenizer",
    documents: Sequence[Document],
    folder: str | Path,
    config: TrainingConfig,
    *,
    resume: bool = True,
    progress: bool = True,
) -> LanguageModel:
    """Trains a model on documents, saves it to a folder as `save_model` does, and returns it.

    The given model is trained in place: a fresh one, or one that was loaded, to fine-tune it. A run
    that was interrupted goes on from its last checkpoint in the folder when it is called again.
    """
    raise NotImplementedError
