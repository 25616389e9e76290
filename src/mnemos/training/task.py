"""Training of a network on a task, until time is up, the task is learned, or nothing more is learned."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from lightning.pytorch import callbacks
from torch import Tensor, nn

from mnemos.progress import Advance
from mnemos.tasks.task import Batch, Task
from mnemos.training.loop import Learner, TrainingConfig, generator_of, run

UNSEEN = 8  # batches that the error is measured on


class Judged(NamedTuple):
    """How far training came."""

    steps: int  # in all, those of earlier runs in the same folder included
    error: float  # on batches that were not trained on, 0 to 1; see `Task.error`


def train_on_task(
    network: nn.Module,
    task: Task,
    folder: str | Path,
    config: TrainingConfig,
    *,
    goal: float | None = None,
    patience: int | None = None,
    look_every: int = 100,
    resume: bool = True,
    progress: bool = True,
    advance: Advance | None = None,
) -> Judged:
    """Trains a network in place: `outputs, state = network(inputs, mask=mask)`.

    Batch n depends on the seed and n alone, and a run that was interrupted goes on from its last checkpoint
    in the folder. The folder also gets logs, for TensorBoard where that is installed.

    Args:
        goal: the error on unseen batches at which training ends early.
        patience: how many looks in a row may show no lesser error before training ends early.
        look_every: steps from one look at unseen batches to the next.
        resume: False starts afresh where the folder holds a checkpoint.
        progress: whether to show a progress bar, on stderr.
        advance: told (share done, step and loss) after every step, in place of that bar.

    Raises:
        ValueError: the folder holds the checkpoint of another run.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was saved.
    """
    judge = task.unseen()
    unseen = [judge.batch(config.batch_size, generator_of(config.seed, -1 - n)) for n in range(UNSEEN)]
    watchers = []
    if goal is not None or patience is not None:
        looks = 10**9 if patience is None else patience
        watchers.append(callbacks.EarlyStopping("error", patience=looks, stopping_threshold=goal))
    identity = {
        "task": hashlib.sha256(repr(task).encode()).hexdigest(),
        "parameters": {name: list(parameter.shape) for name, parameter in network.named_parameters()},
    }
    counter = _Counter()
    learner = Learner(
        network.train(),
        lambda network, batch: task.loss(_outputs(network, batch), batch),
        config,
        identity,
        lambda network, batch: task.error(_outputs(network, batch), batch),
    )

    interrupted = run(
        learner,
        lambda step: task.batch(config.batch_size, generator_of(config.seed, step)),
        Path(folder),
        resume=resume,
        progress=progress,
        advance=advance,
        unseen=unseen,
        watchers=[*watchers, counter],
        look_every=look_every,
    )
    network.cpu().eval()
    if interrupted:
        raise KeyboardInterrupt
    return Judged(counter.steps, error_on(network, task, unseen))


@torch.no_grad()
def error_on(network: nn.Module, task: Task, batches: list[Batch]) -> float:
    """The mean error of a network on batches."""
    errors = [task.error(_outputs(network, batch), batch) for batch in batches]
    return sum(errors) / len(errors)


def _outputs(network: nn.Module, batch: Batch) -> Float[Tensor, "batch time output"]:
    outputs, _ = network(batch.inputs, mask=None if bool(batch.real.all()) else batch.real)
    return outputs


class _Counter(callbacks.Callback):
    """Knows the steps of a run when it has ended."""

    steps = 0

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.steps = trainer.global_step
