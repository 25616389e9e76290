"""The few lines of training that the studies share. It is an experiment's loop, not a trainer."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from mnemos.progress import Advance


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    steps: int,
    *,
    learning_rate: float,
    clip: float = 1.0,
    inertia: float = 0.999,
    advance: Advance,
    done: Callable[[int], bool] = lambda step: False,
) -> int:
    """Minimises `loss` with Adam, the learning rate falling linearly to zero after a short warm-up.

    Args:
        loss: from the number of the step, 0 for the first, to what is to be made small.
        clip: the gradient's greatest norm.
        inertia: β2, how slowly Adam takes notice of the gradient's size. Where a task grows harder on the
            way, 0.999 remembers the small gradients of the easy part for too long, and steps far.
        done: asked after each step, with the number of steps taken; true ends the training early.

    Returns:
        The number of steps taken.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, inertia))
    warm_up = max(1, steps // 50)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 1 - step / steps)
    )
    for step in range(steps):
        optimizer.zero_grad()
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            advance(step / steps, f"step {step} of {steps}, loss {value.item():.4f}")
        if done(step + 1):
            return step + 1
    return steps


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step, for loops that do more than `fit`."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def mean(values: Iterable[Tensor]) -> float:
    """The average of numbers that batches gave, without a gradient."""
    return torch.stack([value.detach() for value in values]).double().mean().item()
