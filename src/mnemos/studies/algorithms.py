"""What studies of memories with heads share: networks that are taught a task of `tasks`, and their error."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.memories.recurrent import Recurrent
from mnemos.memories.stepped import SteppedMemory
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.progress import Advance
from mnemos.studies.fit import fit
from mnemos.tasks.task import Batch, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def with_controller(task: Task, memory: SteppedMemory) -> MemoryAugmented:
    """A memory and its controller, which is feed-forward, so that what lasts, lasts in memory alone."""
    seen, told = task.input_size + memory.output_size, memory.input_size
    controller = nn.Sequential(nn.Linear(seen, told), nn.Tanh())
    return MemoryAugmented(controller, memory, task.output_size, input_size=task.input_size)


def teach(
    network: nn.Module,
    task: Task,
    steps: int,
    *,
    learning_rate: float,
    clip: float = 10.0,
    inertia: float = 0.999,
    seed: int,
    advance: Advance,
) -> float:
    """Trains a network on new sequences in every step, and returns the steps that it took in a second."""
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        batch = task.batch(ROWS, generator)
        # Without a mask: padding comes after all that is scored, and steps without one are faster.
        return task.loss(network(batch.inputs)[0], batch)

    start = time.perf_counter()
    taken = fit(
        network, loss, steps, learning_rate=learning_rate, clip=clip, inertia=inertia, advance=advance
    )
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


@torch.no_grad()
def weights_over(network: MemoryAugmented, batch: Batch) -> dict[str, list[list[float]]]:
    """Where the first heads to write and to read were, in every step of a batch's first sequence."""
    state = None
    found: dict[str, list[list[float]]] = {"write_weights": [], "read_weights": []}
    for inputs in batch.inputs[:1].split(1, dim=1):
        _, state = network(inputs, state)
        for name, slots in found.items():
            slots.append([round(weight, 3) for weight in getattr(state.memory, name)[0, 0].tolist()])
    return found


def draw_weights(maps: "Sequence[Axes]", measured: Mapping[str, Any]) -> None:
    """What `weights_over` found, slots upwards and steps to the right; blank axes where it is missing."""
    for axes, name in zip(maps, ("write_weights", "read_weights"), strict=True):
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("step")
        axes.grid(False)
        if name in measured:
            slots = [list(weights) for weights in zip(*measured[name], strict=True)]
            axes.imshow(
                slots, aspect="auto", origin="lower", cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
            )
    maps[0].set_ylabel("slot")
