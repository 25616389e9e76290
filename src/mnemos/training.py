"""Training of small language models with Lightning. Import this module late: Lightning takes seconds."""

import hashlib
import importlib.util
import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (the usual name)
from jaxtyping import Float, Int
from torch import Tensor

from mnemos.models.checkpoint import LanguageModel, save_model
from mnemos.models.transformer import Transformer
from mnemos.tasks.text import Document, encode

try:
    import lightning.pytorch as lightning
    from lightning.pytorch import callbacks, loggers
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
except ImportError as error:
    raise ImportError('training needs: pip install "mnemos[train]"') from error

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHECKPOINT = "checkpoints/last.ckpt"
NOT_A_TARGET = -100  # what torch's cross-entropy leaves out


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how to train. Whichever of `steps` and `seconds` is reached first ends it.

    The learning rate warms up over 50 steps and falls by a cosine to a tenth.
    With `steps` alone a run can be repeated exactly on the same machine.
    """

    steps: int | None = None
    seconds: float | None = None
    batch_size: int = 8  # samples of the model's context each
    learning_rate: float = 2e-3
    weight_decay: float = 2.0  # high: a small text is read many times, and would be learned by heart
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ValueError("steps or seconds must be given, or training never ends")
        for name in ("steps", "seconds", "batch_size", "learning_rate"):
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise ValueError(f"{name} must be above 0, not {given}")


def train_language_model(
    model: Transformer,
    tokenizer: "Tokenizer",
    documents: Sequence[Document],
    folder: str | Path,
    config: TrainingConfig,
    *,
    resume: bool = True,
    progress: bool = True,
    advance: Callable[[float, str], None] | None = None,
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
    identity = _identity(model, samples, config)
    checkpoint = Path(folder) / CHECKPOINT
    found = resume and checkpoint.is_file()
    if found:
        _check_identity(checkpoint, identity)
    timer = callbacks.Timer(
        duration=timedelta(seconds=config.seconds) if config.seconds else None, verbose=False
    )
    with _quiet_lightning():
        shown = [callbacks.RichProgressBar(leave=True, console_kwargs={"stderr": True})] if progress else []
        told = [_Teller(config, timer.time_elapsed, advance)] if advance else shown
        trainer = _trainer(Path(folder), config, [timer, *told])
        samples.first_step = lambda: trainer.global_step
        module = _Training(model.train(), config, identity, timer.time_elapsed)
        interrupted = _fit(trainer, module, samples, checkpoint if found else None)
        if not interrupted:
            trainer.save_checkpoint(checkpoint)
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
    """

    def __init__(self, texts: list[Tensor], model: Transformer, config: TrainingConfig) -> None:
        self.seed, self.batch_size, self.context = config.seed, config.batch_size, model.context
        start = torch.tensor([model.start])
        padded = [F.pad(text, (0, max(0, self.context - len(text))), value=NOT_A_TARGET) for text in texts]
        self.texts = [torch.cat([start, text]) for text in padded]
        choices = torch.tensor([len(text) - self.context for text in self.texts])
        self.last_choices = choices.cumsum(0)
        self.first_step: Callable[[], int] = lambda: 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        step = self.first_step()
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
        """Inputs and targets of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        chosen = torch.randint(int(self.last_choices[-1]), (self.batch_size,), generator=generator)
        which = torch.searchsorted(self.last_choices, chosen, right=True)
        stretches = []
        for document, choice in zip(which.tolist(), chosen.tolist(), strict=True):
            text = self.texts[document]
            begin = int(self.last_choices[document]) - choice - 1
            stretches.append(text[begin : begin + self.context + 1])
        tokens = torch.stack(stretches)
        return tokens[:, :-1].clamp(min=0), tokens[:, 1:]


class _Training(lightning.LightningModule):
    """What Lightning needs to know: the loss, the optimiser and its schedule."""

    def __init__(
        self,
        model: Transformer,
        config: TrainingConfig,
        identity: dict[str, Any],
        elapsed: Callable[[], float],
    ) -> None:
        super().__init__()
        self.model, self.config, self.identity, self.elapsed = model, config, identity, elapsed

    def training_step(
        self, batch: tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]], index: int
    ) -> Float[Tensor, ""]:
        logits, _ = self.model(batch[0])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), ignore_index=NOT_A_TARGET)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        matrices = [parameter for parameter in self.parameters() if parameter.dim() > 1]
        vectors = [parameter for parameter in self.parameters() if parameter.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self._rate(step))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        done = _share_done(self.config, step, float(self.elapsed()))
        warm = min((step + 1) / 50, 1.0)
        return warm * (0.55 + 0.45 * math.cos(math.pi * done))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = self.identity


class _Teller(lightning.Callback):
    """Tells somebody how far training is."""

    def __init__(
        self, config: TrainingConfig, elapsed: Callable[[], float], advance: Callable[[float, str], None]
    ) -> None:
        self.config, self.elapsed, self.advance = config, elapsed, advance

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        step = trainer.global_step
        loss = float(outputs["loss"])
        self.advance(_share_done(self.config, step, self.elapsed()), f"step {step:,}, loss {loss:.2f}")


def _share_done(config: TrainingConfig, step: int, elapsed: float) -> float:
    by_steps = step / config.steps if config.steps else 0.0
    by_seconds = elapsed / config.seconds if config.seconds else 0.0
    return min(max(by_steps, by_seconds), 1.0)


def _identity(model: Transformer, samples: Samples, config: TrainingConfig) -> dict[str, Any]:
    """What a run must have in common with the checkpoint that it goes on from."""
    digest = hashlib.sha256()
    for text in samples.texts:
        digest.update(text.numpy().tobytes())
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    chosen = {name: getattr(config, name) for name in ("batch_size", "learning_rate", "weight_decay", "seed")}
    return {"documents": digest.hexdigest(), "parameters": shapes, **chosen}


def _check_identity(checkpoint: Path, identity: dict[str, Any]) -> None:
    found = torch.load(checkpoint, map_location="cpu", weights_only=True).get("identity", {})
    other = [name for name, value in identity.items() if found.get(name) != value]
    if other:
        raise ValueError(
            f"{checkpoint} is of another run (its {', '.join(other)} differ): "
            "choose another folder, or start afresh with resume=False"
        )


def _trainer(folder: Path, config: TrainingConfig, told: list[Any]) -> Any:
    keeper = callbacks.ModelCheckpoint(
        dirpath=folder / "checkpoints",
        filename="last",
        train_time_interval=timedelta(seconds=20),
        save_on_exception=True,
        enable_version_counter=False,
    )
    tensorboard = importlib.util.find_spec("tensorboard") is not None
    logger = loggers.TensorBoardLogger if tensorboard else loggers.CSVLogger
    return lightning.Trainer(
        default_root_dir=folder,
        max_steps=config.steps or -1,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        gradient_clip_val=1.0,
        logger=logger(folder, name="logs"),
        callbacks=[*told, keeper],
        enable_progress_bar=any(isinstance(one, callbacks.ProgressBar) for one in told),
        log_every_n_steps=10,
        enable_model_summary=False,
    )


def _fit(trainer: Any, module: Any, samples: Samples, checkpoint: Path | None) -> bool:
    """Runs, and says whether Ctrl-C ended it: Lightning would leave the process and ignore Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, samples, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        return True
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
    return False


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keeps what Lightning says about devices and its own products off the terminal."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # To go on in a folder that holds the run's own checkpoint is what is meant.
            warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
            # Lightning's own use of a name that torch has renamed.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            yield
    finally:
        logger.setLevel(before)
