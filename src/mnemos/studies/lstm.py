"""The LSTM on the two problems that made it: adding over 200 steps, copying over 100.

Hochreiter & Schmidhuber 1997, in the forms of Arjovsky, Shah & Bengio 2016. The gates start with time
constants spread over the problem's length (chrono initialisation, Tallec & Ollivier 2018). Copying is taught
with a delay that grows as it is mastered, from 1 to 100 steps, and measured at 100.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnemos.memories.recurrent import Recurrent
from mnemos.progress import Advance, between
from mnemos.studies.fit import fit, mean
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks import adding, copying

ROWS = 32
CHECK = 250  # steps between looks at unseen data
MASTERED = 0.1  # of the memoryless loss: the delay then grows


class Reader(nn.Module):
    """An LSTM and a linear map of its hidden state."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int, longest_dependency: int) -> None:
        super().__init__()
        self.memory = Recurrent(input_size, hidden_size, longest_dependency=longest_dependency)
        self.output = nn.Linear(hidden_size, output_size)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs, _ = self.memory(inputs)
        return self.output(outputs)


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    time, delay = (400, 200) if full else (200, 100)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    measured = {"adding_time": time, "copying_delay": delay}
    measured |= _adding(time, generator, between(advance, 0.0, 0.35))
    measured |= _copying(delay, 12_000 if full else 6_000, generator, between(advance, 0.35, 1.0))
    return measured


def _adding(time: int, generator: torch.Generator, advance: Advance) -> dict[str, Any]:
    reader = Reader(adding.INPUT_SIZE, 64, 1, longest_dependency=time)

    def loss(step: int) -> Tensor:
        inputs, targets = adding.batch(ROWS, time, generator)
        return functional.mse_loss(reader(inputs)[:, -1, 0], targets)

    steps = fit(reader, loss, 3000, learning_rate=5e-3, advance=advance, done=_below(0.005, loss))
    return {"adding_steps": steps, "adding_error": _unseen(loss, 100), "adding_baseline": adding.BASELINE}


def _copying(longest: int, steps: int, generator: torch.Generator, advance: Advance) -> dict[str, Any]:
    reader = Reader(copying.VOCABULARY, 128, copying.VOCABULARY, longest_dependency=longest)
    delay = 1

    def ratio(delay: int) -> Tensor:
        """The loss as a share of the memoryless one."""
        inputs, targets = copying.batch(ROWS, delay, generator)
        logits = reader(functional.one_hot(inputs, copying.VOCABULARY).float())
        cross_entropy = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return cross_entropy / copying.memoryless_loss(delay)

    def loss(step: int) -> Tensor:
        nonlocal delay
        value = ratio(delay)
        if value.item() < MASTERED:
            delay = min(longest, delay + max(1, delay // 10))
        return value * copying.memoryless_loss(delay)

    def at_longest(step: int) -> Tensor:
        return ratio(longest)

    done = _below(0.05, at_longest)
    taken = fit(reader, loss, steps, learning_rate=1e-2, clip=0.3, inertia=0.99, advance=advance, done=done)
    share = _unseen(at_longest, 50)
    return {
        "copying_steps": taken,
        "copying_share_of_memoryless_loss": share,
        "copying_loss": share * copying.memoryless_loss(longest),
        "copying_memoryless_loss": copying.memoryless_loss(longest),
    }


def _below(goal: float, loss: Callable[[int], Tensor]) -> Callable[[int], bool]:
    """Whether unseen batches, looked at now and then, are answered well enough to stop."""
    return lambda step: step % CHECK == 0 and _unseen(loss, 5) < goal


@torch.no_grad()
def _unseen(loss: Callable[[int], Tensor], batches: int) -> float:
    return mean(loss(0) for _ in range(batches))


STUDY = Study(
    name="lstm",
    title="An LSTM adds over 200 steps and copies over 100 (Hochreiter & Schmidhuber 1997)",
    measure=measure,
    thresholds={
        "adding_error": Threshold("<", 0.01),
        "adding_steps": Threshold("<=", 3000),
        "copying_share_of_memoryless_loss": Threshold("<", 0.1),
    },
    paper=[
        Figure("error of always answering 1 in the adding problem", 0.167, "Arjovsky, Shah & Bengio 2016"),
        Figure(
            "cross-entropy without a memory in the copying problem",
            "10 log(8) / (T + 20)",
            "Arjovsky, Shah & Bengio 2016",
        ),
    ],
)
