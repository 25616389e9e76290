"""Training of small language models."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (the usual name)
from jaxtyping import Float, Int
from torch import Tensor, nn

from mnemos.models.checkpoint import LanguageModel, save_model
from mnemos.models.transformer import Transformer
from mnemos.progress import Advance
from mnemos.tasks.text import Document, encode
from mnemos.training.loop import Learner, TrainingConfig, generator_of, run

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NOT_A_TARGET = -100  # what torch's cross-entropy leaves out


def train_language_model(
    model: Transformer,
    tokenizer: "Tokenizer",
    documents: Sequence[Document],
    folder: str | Path,
    config: TrainingConfig,
    *,
    resume: bool = True,
    progress: bool = True,
    advance: Advance | None = None,
) -> LanguageModel:
    """Trains a model on documents, saves it to a folder as `save_model` does, and returns it.

    The given model is trained in place: a fresh one, or to fine-tune it one that was loaded. A run that
    was interrupted, by Ctrl-C or a crash, goes on from its last checkpoint in the folder when it is
    called again in the same way; after Ctrl-C the folder holds a usable model too.

    Args:
        resume: False starts afresh where the folder holds a checkpoint.
        progress: whether to show a progress bar, on stderr.
        advance: told (share done, from 0 to 1; step and loss) after every step, in place of that bar.

    Raises:
        ValueError: no document, or the folder holds the checkpoint of another run.
        KeyboardInterrupt: Ctrl-C, after everything was saved.
    """
    samples = Samples(encode_documents(tokenizer, documents), model, config)
    learner = Learner(model.train(), cross_entropy, config, identity(model, samples.texts))
    interrupted = run(learner, samples.batch, Path(folder), resume=resume, progress=progress, advance=advance)
    whole = save_model(folder, model.cpu().eval(), tokenizer)
    if interrupted:
        raise KeyboardInterrupt
    return whole


def encode_documents(tokenizer: "Tokenizer", documents: Sequence[Document]) -> list[Tensor]:
    """The tokens of each document."""
    if not documents:
        raise ValueError("documents must hold at least one document to train on")
    return [encode(tokenizer, document.text).ids for document in documents]


class Samples:
    """Batches of random stretches of documents, without end; batch n depends on the seed and n alone.

    A stretch lies within one document, and begins with the mark of a start if it is the document's
    first; what a short document lacks is left out of the loss.

    Args:
        rows: of a batch; None is the configuration's.
        salt: another number draws other stretches in the same step.
    """

    def __init__(
        self,
        texts: list[Tensor],
        model: Transformer,
        config: TrainingConfig,
        *,
        rows: int | None = None,
        salt: int = 0,
    ) -> None:
        self.seed, self.salt, self.context = config.seed, salt, model.context
        self.rows = config.batch_size if rows is None else rows
        start = torch.tensor([model.start])
        padded = [F.pad(text, (0, max(0, self.context - len(text))), value=NOT_A_TARGET) for text in texts]
        self.texts = [torch.cat([start, text]) for text in padded]
        choices = torch.tensor([len(text) - self.context for text in self.texts])
        self.last_choices = choices.cumsum(0)

    def batch(self, step: int) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
        """Inputs and targets of one step."""
        generator = generator_of(self.seed + 7919 * self.salt, step)
        chosen = torch.randint(int(self.last_choices[-1]), (self.rows,), generator=generator)
        which = torch.searchsorted(self.last_choices, chosen, right=True)
        stretches = []
        for document, choice in zip(which.tolist(), chosen.tolist(), strict=True):
            text = self.texts[document]
            begin = int(self.last_choices[document]) - choice - 1
            stretches.append(text[begin : begin + self.context + 1])
        tokens = torch.stack(stretches)
        return tokens[:, :-1].clamp(min=0), tokens[:, 1:]


def identity(model: Transformer, texts: Sequence[Tensor]) -> dict[str, Any]:
    """What a run must have in common with the checkpoint that it goes on from."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.numpy().tobytes())
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    return {"documents": digest.hexdigest(), "parameters": shapes}


def cross_entropy(
    model: nn.Module, batch: tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]
) -> Float[Tensor, ""]:
    logits, _ = model(batch[0])
    return F.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), ignore_index=NOT_A_TARGET)
