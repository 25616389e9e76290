"""Training of a network that answers questions about stories, with checkpoints like every other run."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning.pytorch import callbacks
from torch import Tensor
from torch.nn import functional

from mnemos.models.answering import answer_error, with_blanks
from mnemos.models.end_to_end import MemN2N
from mnemos.progress import Advance
from mnemos.tasks.babi import Questions
from mnemos.training.loop import Learner, TrainingConfig, generator_of, run

BLANKS = 0.1  # sentences that say nothing put among the others, for each (random noise)
LINEAR_SHARE = 0.15  # of the steps that begin without softmax (linear start)


def train_on_stories(
    network: MemN2N,
    learn: Questions,
    choose: Questions,
    folder: str | Path,
    config: TrainingConfig,
    *,
    goal: float | None = None,
    look_every: int = 100,
    resume: bool = True,
    advance: Advance | None = None,
) -> float:
    """Trains a network in place and returns its error on `choose`, 0 to 1.

    With the linear start and the random noise of Sukhbaatar et al. 2015, but by AdamW, and in steps rather
    than epochs. Batch n depends on the seed and n alone, and a run that was interrupted goes on from its
    last checkpoint in the folder.

    Args:
        config: with `steps`, a share of which is the linear start.
        goal: the error on `choose` at which training ends early, once the linear start is over.
        look_every: steps from one look at `choose` to the next.

    Raises:
        ValueError: the folder holds the checkpoint of another run, or `config` has no steps.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was saved.
    """
    if config.steps is None:
        raise ValueError("config must have steps: the linear start is a share of them")
    learn = learn.pick(learn.answers >= 0)
    linear = int(LINEAR_SHARE * config.steps)

    def loss(network: MemN2N, batch: Questions) -> Float[Tensor, ""]:
        answer = network(batch.sentences, batch.told, batch.questions)
        return functional.cross_entropy(answer.logits, batch.answers)

    def error(network: MemN2N, batch: Questions) -> float:
        return 1.0 if network.memory.linear else answer_error(network, batch)  # not done before it has begun

    def batch(step: int) -> Questions:
        generator = generator_of(config.seed, step)
        rows = torch.randint(len(learn.told), (config.batch_size,), generator=generator)
        return with_blanks(learn.pick(rows), BLANKS, network.slots, generator)

    digest = hashlib.sha256()
    for tensor in learn:
        digest.update(tensor.numpy().tobytes())
    identity = {"stories": digest.hexdigest(), "network": network.configuration()}
    watchers: list[Any] = [_LinearStart(network, linear)]
    if goal is not None:
        watchers.append(callbacks.EarlyStopping("error", patience=10**9, stopping_threshold=goal))
    interrupted = run(
        Learner(network.train(), loss, config, identity, error),
        batch,
        Path(folder),
        resume=resume,
        progress=False,
        advance=advance,
        unseen=[choose],
        watchers=watchers,
        look_every=look_every,
    )
    network.memory.linear = False
    network.cpu().eval()
    if interrupted:
        raise KeyboardInterrupt
    return answer_error(network, choose)


class _LinearStart(callbacks.Callback):
    """Leaves the softmax out of the first steps."""

    def __init__(self, network: MemN2N, steps: int) -> None:
        self.network, self.steps = network, steps

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        self.network.memory.linear = trainer.global_step < self.steps
