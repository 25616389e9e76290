"""Memories with heads do not blow up: a hundred trainings of each from its own random beginning.

Counts are printed: `pytest -m slow tests/slow/test_stability.py -s`.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mnemos.memories import DNC, MANN, NTM, SAM, SDNC, Recurrent
from mnemos.memories.stepped import SteppedMemory
from mnemos.models.memory_augmented import MemoryAugmented
from mnemos.tasks.algorithms import Copy

SEEDS, STEPS = 100, 200
INPUT = 16  # width of what the controller gives
TASK = Copy(width=3, lengths=(1, 3))

# Each with the learning rate at which its study trains it.
MEMORIES: dict[str, tuple[Callable[[], SteppedMemory], float]] = {
    "DNC": (lambda: DNC(INPUT, slots=16, width=6, read_heads=2), 1e-2),
    "MANN": (lambda: MANN(INPUT, slots=16, width=6, heads=2), 1e-2),
    "NTM": (lambda: NTM(INPUT, slots=16, width=6), 1e-2),
    "SAM": (lambda: SAM(INPUT, slots=16, width=6, heads=2), 5e-3),
    "SDNC": (lambda: SDNC(INPUT, slots=16, width=6, heads=2), 5e-3),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", MEMORIES)
def test_no_training_of_a_hundred_breaks(name: str) -> None:
    broken, exploded, unlearned = [], [], []
    for seed in range(SEEDS):
        losses = _losses(name, seed)
        if not all(map(math.isfinite, losses)):
            broken.append(seed)
        elif max(losses[20:]) > 2 * losses[0]:
            exploded.append(seed)
        elif sum(losses[-20:]) / 20 > losses[0]:
            unlearned.append(seed)
    print(
        f"\n{name}: of {SEEDS} seeds x {STEPS} steps, {len(broken)} not finite, "
        f"{len(exploded)} exploded, {len(unlearned)} not better than at first"
    )
    assert not broken
    assert not exploded
    assert not unlearned


def _losses(name: str, seed: int) -> list[float]:
    """The loss of every step of a training, which ends where it is no number."""
    torch.manual_seed(seed)
    make, learning_rate = MEMORIES[name]
    memory = make()
    controller = Recurrent(TASK.input_size + memory.output_size, INPUT)
    network = MemoryAugmented(controller, memory, TASK.output_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(STEPS):
        batch = TASK.batch(4, generator)
        loss = TASK.loss(network(batch.inputs)[0], batch)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
    return losses
