"""What a ring is said to hold is what a plain program that keeps the last would hold."""

import random

import pytest
import torch

from mnemos.ops.ring import after, filled, turn, visible


def plain(held, slots, steps):
    """One row in Python's own lists: (what is held before each step, what lies in each slot at the end)."""
    written, before = list(held), []
    for step, real, starts in steps:
        written = [] if starts else written
        before.append(set(written[-slots:]))
        written = [*written, step] if real else written
    end = [None] * slots
    for number, step in enumerate(written):
        end[number % slots] = step
    return before, end, len(written)


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("resets", [False, True])
def test_a_stretch_is_what_the_plain_program_does(slots, resets):
    chance = random.Random(slots)
    for _ in range(30):
        past = [chance.choice([0, 1, 2, slots, slots + 1, 3 * slots + 2]) for _ in range(4)]
        time = chance.choice([0, 1, 2, slots, 2 * slots + 3])
        real = torch.tensor([[chance.random() < 0.7 for _ in range(time)] for _ in past]).view(4, time).bool()
        reset = (
            torch.tensor([[chance.random() < 0.2 for _ in range(time)] for _ in past]).view(4, time).bool()
        )
        reset = reset if resets else None
        old = torch.zeros(4, slots, 1)
        for row, count in enumerate(past):  # record n of the past is called -100 - n, the steps 1, 2, …
            for number in range(count):
                old[row, number % slots] = -100 - number
        new = torch.arange(1.0, time + 1).view(1, time, 1).expand(4, -1, -1)
        ring = turn(torch.tensor(past), slots, real, reset)
        seen, names = visible(ring), torch.cat([old, new], dim=1).squeeze(-1)
        left = after(old, new, ring)
        for row, count in enumerate(past):
            starts = [False] * time if reset is None else reset[row].tolist()
            steps = zip(range(1, time + 1), real[row].tolist(), starts, strict=True)
            before, end, clock = plain([-100 - number for number in range(count)], slots, steps)
            assert [set(names[row, flags].tolist()) for flags in seen[row]] == before
            assert left[row, :, 0].tolist() == [name or 0 for name in end]
            assert ring.clock[row] == clock
            assert filled(ring.clock, slots)[row].tolist() == [name is not None for name in end]


def test_a_long_stretch_costs_no_more_than_its_length():
    """What every step sees takes the square; what is left at the end does not need it."""
    ring = turn(torch.tensor([5]), 50_000, torch.ones(1, 100_000, dtype=torch.bool))
    left = after(torch.zeros(1, 50_000, 1), torch.arange(100_000.0).view(1, -1, 1), ring)
    assert left[0, :10, 0].tolist() == [99_995 + n if n < 5 else 49_995 + n for n in range(10)]
