"""What studies of memories with heads share: networks that are taught a task of `tasks`, and their error."""

import time
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.ntm import NTM
from mnemos.memories.recurrent import Recurrent
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.studies.fit import fit
from mnemos.studies.study import Advance
from mnemos.tasks.task import Task

ROWS = 16  # sequences of a training step
TOGETHER = 50  # sequences that are tried at once


@final
class Control(nn.Module):
    """An LSTM and a linear map of its hidden state, called as a memory is."""

    def __init__(self, task: Task, hidden_size: int) -> None:
        super().__init__()
        self.memory = Recurrent(task.input_size, hidden_size)
        self.output = nn.Linear(hidden_size, task.output_size)

    def forward(self, inputs: Float[Tensor, "batch time input"]) -> tuple[Tensor, Any]:
        outputs, state = self.memory(inputs)
        return self.output(outputs), state


def turing_machine(task: Task, memory: NTM, *, recurrent: bool = False) -> MemoryAugmented:
    """A memory and its controller: an LSTM, or feed-forward, so that what lasts, lasts in memory alone."""
    seen, told = task.input_size + memory.output_size, memory.input_size
    controller = Recurrent(seen, told) if recurrent else nn.Sequential(nn.Linear(seen, told), nn.Tanh())
    return MemoryAugmented(controller, memory, task.output_size, input_size=task.input_size)


def teach(
    network: nn.Module, task: Task, steps: int, *, learning_rate: float, seed: int, advance: Advance
) -> float:
    """Trains a network on new sequences in every step, and returns the steps that it took in a second."""
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        batch = task.batch(ROWS, generator)
        # Without a mask: padding comes after all that is scored, and steps without one are faster.
        return task.loss(network(batch.inputs)[0], batch)

    start = time.perf_counter()
    taken = fit(network, loss, steps, learning_rate=learning_rate, clip=10.0, advance=advance)
    return taken / (time.perf_counter() - start)


@torch.no_grad()
def tried(network: nn.Module, task: Task, rows: int, seed: int) -> tuple[float, float]:
    """The error and the loss of a network on sequences that it has not seen."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    batches = [task.batch(TOGETHER, generator) for _ in range(rows // TOGETHER)]
    found = [
        (task.error(outputs, batch), task.loss(outputs, batch).item())
        for batch, outputs in ((batch, network(batch.inputs)[0]) for batch in batches)
    ]
    errors, losses = zip(*found, strict=True)
    return sum(errors) / len(errors), sum(losses) / len(losses)
