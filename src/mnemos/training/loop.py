"""One run of training with Lightning: resumed where it was stopped, checkpointed, logged, and told of."""

import importlib.util
import itertools
import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.progress import Advance

try:
    import lightning.pytorch as lightning
    from lightning.pytorch import callbacks, loggers
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
except ImportError as error:
    raise ImportError('training needs: pip install "mnemos[train]"') from error

CHECKPOINT = "checkpoints/last.ckpt"


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


class Learner(lightning.LightningModule):
    """What Lightning needs to know: the loss, the optimiser and its schedule.

    Args:
        network: what is trained.
        loss: of the network and a batch.
        identity: what a run must have in common with the checkpoint that it goes on from, beside what of
            the configuration shapes every step.
        error: of the network and a batch, lower is better; measured on the run's unseen batches.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Any, Any], Float[Tensor, ""]],
        config: TrainingConfig,
        identity: dict[str, Any],
        error: Callable[[Any, Any], float] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.loss, self.error = loss, error
        same = ("batch_size", "learning_rate", "weight_decay", "seed")
        self.identity = {**identity, **{name: getattr(config, name) for name in same}}
        self.elapsed: Callable[[], float] = lambda: 0.0

    def training_step(self, batch: Any, index: int) -> Float[Tensor, ""]:
        loss = self.loss(self.network, batch)
        self.log("loss", loss, prog_bar=True, batch_size=self.config.batch_size)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        assert self.error is not None
        self.log("error", self.error(self.network, batch), prog_bar=True, batch_size=self.config.batch_size)

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


def run(
    learner: Learner,
    batch: Callable[[int], Any],
    folder: Path,
    *,
    resume: bool,
    progress: bool,
    advance: Advance | None,
    unseen: Iterable[Any] | None = None,
    watchers: Sequence[Any] = (),
    look_every: int = 100,
) -> bool:
    """Trains until the configuration says so; returns whether Ctrl-C ended it, after everything was saved.

    Args:
        batch: that of a step, from 0; `generator_of` is its chance.
        unseen: batches that the learner's `error` is measured on, every `look_every` steps.
        watchers: further callbacks of Lightning, for instance one that ends the run early.

    Raises:
        ValueError: the folder holds the checkpoint of another run.
    """
    config, checkpoint = learner.config, folder / CHECKPOINT
    found = resume and checkpoint.is_file()
    if found:
        _check_identity(checkpoint, learner.identity)
    timer = callbacks.Timer(
        duration=timedelta(seconds=config.seconds) if config.seconds else None, verbose=False
    )
    learner.elapsed = timer.time_elapsed
    with _quiet_lightning():
        shown = [callbacks.RichProgressBar(leave=True, console_kwargs={"stderr": True})] if progress else []
        told = [_Teller(config, timer.time_elapsed, advance)] if advance else shown
        looks = {"val_check_interval": look_every, "check_val_every_n_epoch": None} if unseen else {}
        trainer = _trainer(folder, config, [timer, *told, *watchers], looks)
        # From the trainer's step on: a run that goes on gets the batches that it has not had.
        stream = _Iterable(lambda: map(batch, itertools.count(trainer.global_step)))
        looked_at = None if unseen is None else _Iterable(lambda: iter(unseen))
        interrupted = _fit(trainer, learner, stream, looked_at, checkpoint if found else None)
        if not interrupted:
            trainer.save_checkpoint(checkpoint)
    return interrupted


def generator_of(seed: int, number: int) -> torch.Generator:
    """The chance of one step, or of one batch to be judged by where the number is negative."""
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)


class _Iterable:
    """What Lightning goes through again and again; to it a plain list would be several sources of batches."""

    def __init__(self, begin: Callable[[], Iterator[Any]]) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self.begin()


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


def _check_identity(checkpoint: Path, identity: dict[str, Any]) -> None:
    found = torch.load(checkpoint, map_location="cpu", weights_only=True).get("identity", {})
    other = [name for name, value in identity.items() if found.get(name) != value]
    if other:
        raise ValueError(
            f"{checkpoint} is of another run (its {', '.join(other)} differ): "
            "choose another folder, or start afresh with resume=False"
        )


def _trainer(folder: Path, config: TrainingConfig, told: list[Any], looks: dict[str, Any]) -> Any:
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
        num_sanity_val_steps=0,
        **looks,
        enable_model_summary=False,
    )


def _fit(trainer: Any, learner: Any, stream: Any, unseen: Any, checkpoint: Path | None) -> bool:
    """Runs, and says whether Ctrl-C ended it: Lightning would leave the process and ignore Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(learner, stream, unseen, ckpt_path=checkpoint, weights_only=True)
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
            # Who has no unseen batches is not judged.
            warnings.filterwarnings("ignore", "You defined a `validation_step` but have no `val_dataloader`")
            # Lightning's own use of a name that torch has renamed.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            yield
    finally:
        logger.setLevel(before)
