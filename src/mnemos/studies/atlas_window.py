"""What Atlas' window is for: to learn the context, not its last step, and to leave out what does not matter.

A stream of pairs (k, A k + noise) whose keys follow one another closely is told once. The measure is how far
the matrix then is from the least squares of all pairs: 0 is there, 1 is a memory of zeros. Settings are
chosen on half of the streams and judged by the other half.
"""

import itertools
import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mnemos.memories.atlas import Atlas
from mnemos.progress import Advance

SIZE = 16  # numbers of a key and of a value
FOLLOWING, NOISE = 0.9, 0.5  # how much of a key is the last one; of a value, beside numbers of size 1
WINDOWS = (1, 2, 4, 8, 16)
RATES = tuple(2.0**-k for k in range(9))
MOMENTA = (0.0, 0.5, 0.8, 0.9)
MATTERING = 4  # steps that matter in a window whose every second step is noise


class Stream(NamedTuple):
    """Pairs in the order in which they are told, and the loss of the best matrix and of none."""

    keys: Float[Tensor, "batch time keys"]
    values: Float[Tensor, "batch time width"]
    least: Float[Tensor, "batch"]
    greatest: Float[Tensor, "batch"]

    def excess(self, memory: Atlas, state: Any) -> Float[Tensor, "tried batch"]:
        """The loss above the least, as a share of that of zeros, setting by setting."""
        tried = len(state.left) // len(self.keys)
        answers = memory.read(state, self.keys.repeat(tried, 1, 1)).values.unflatten(0, (tried, -1))
        loss = (answers - self.values).square().sum((2, 3))
        return (loss - self.least) / (self.greatest - self.least)


def bare(size: int, window: int, newton_schulz_steps: int = 0) -> Atlas:
    """A matrix, of keys as they are, that is changed after every step."""
    memory = Atlas(
        size,
        key_size=size,
        value_size=size,
        depth=1,
        chunk_size=1,
        window=window,
        degree=1,
        newton_schulz_steps=newton_schulz_steps,
    )
    with torch.no_grad():
        memory.features.roots.copy_(torch.tensor([0.0, 1.0]))
    return memory


def stream(rows: int, pairs: int, generator: torch.Generator) -> Stream:
    key, *steps = torch.randn(pairs, rows, SIZE, generator=generator).unbind(0)
    walk = [key]
    for step in steps:
        walk.append(FOLLOWING * walk[-1] + math.sqrt(1 - FOLLOWING**2) * step)
    keys = functional.normalize(torch.stack(walk, dim=1), dim=2)
    true = torch.randn(rows, SIZE, SIZE, generator=generator)
    values = keys @ true + NOISE * torch.randn(rows, pairs, SIZE, generator=generator)
    best = torch.linalg.lstsq(keys.double(), values.double()).solution.float()
    least = (keys @ best - values).square().sum((1, 2))
    return Stream(keys, values, least, values.square().sum((1, 2)))


@torch.no_grad()
def windows(seed: int, pairs: int, streams: int, advance: Advance) -> dict[str, Any]:
    """The excess by window, each with the rate and momentum that are best for it."""
    told = stream(2 * streams, pairs, torch.Generator().manual_seed(seed))
    grid = list(itertools.product(WINDOWS, MOMENTA, RATES))
    window, momentum, rate = (
        torch.tensor(column).repeat_interleave(2 * streams).unsqueeze(1).expand(-1, pairs)
        for column in zip(*grid, strict=True)
    )
    memory = bare(SIZE, max(WINDOWS))
    advance(0.0, "one pass with every window, rate and momentum")
    state = memory.write(
        memory.initial_state(len(rate)),
        told.keys.repeat(len(grid), 1, 1),
        told.values.repeat(len(grid), 1, 1),
        rate=rate,
        momentum=momentum,
        relevance=(torch.arange(max(WINDOWS)) < window.unsqueeze(2)).float().unsqueeze(2),
    )
    by_window = told.excess(memory, state).chunk(len(WINDOWS))
    excess = {str(w): _judged(of) for w, of in zip(WINDOWS, by_window, strict=True)}
    advance(0.5, "the pairs of every window one by one")
    return {
        "excess": excess,
        "excess_one_by_one": _one_by_one(told, max(WINDOWS)),
        "window_excess_ratio": excess[str(max(WINDOWS))] / excess["1"],
    }


def _one_by_one(told: Stream, window: int) -> float:
    """As many gradients of the same pairs, each taken where the last one led: window 1, told repeatedly."""
    places = torch.arange(told.keys.shape[1]).unsqueeze(1) - torch.arange(window).flip(0)
    places = places[places >= 0]
    memory = bare(SIZE, 1)
    keys, values = (x[:, places].repeat(len(RATES), 1, 1) for x in (told.keys, told.values))
    rate = torch.tensor(RATES).repeat_interleave(len(told.keys)).unsqueeze(1).expand(-1, len(places))
    state = memory.write(memory.initial_state(len(rate)), keys, values, rate=rate)
    return _judged(told.excess(memory, state))


def _judged(excess: Float[Tensor, "tried batch"]) -> float:
    """What the setting that is best on the first half of the streams has on the second."""
    first, second = excess.nan_to_num(torch.inf).chunk(2, dim=1)
    return second[first.mean(1).argmin()].mean().item()


@torch.no_grad()
def pruning(seed: int, pairs: int, streams: int) -> dict[str, float]:
    """Every second step is noise: what becomes of the others if γ says so, and if it does not."""
    generator = torch.Generator().manual_seed(seed)
    told = stream(2 * streams, pairs, generator)
    rates = tuple(rate for rate in RATES if rate * MATTERING <= 0.5)  # at which nothing diverges
    tried, rows = len(rates), len(rates) * 2 * streams
    noise = torch.randn(told.values.shape, generator=generator)
    all_keys = torch.stack([told.keys, told.keys.roll(1, dims=0)], dim=2).flatten(1, 2)
    all_values = torch.stack([told.values, noise], dim=2).flatten(1, 2)
    # Of a step that matters, the steps that do: itself, the last but one, and so on.
    matters = torch.tensor([1.0, 0.0])
    relevance = matters.repeat(pairs).view(-1, 1, 1) * matters.repeat(MATTERING)
    rate = torch.tensor(rates).repeat_interleave(2 * streams).unsqueeze(1)

    def tell(keys: Tensor, values: Tensor, window: int, relevance: Tensor) -> tuple[Atlas, Any]:
        memory = bare(SIZE, window)
        state = memory.write(
            memory.initial_state(rows),
            keys.repeat(tried, 1, 1),
            values.repeat(tried, 1, 1),
            rate=rate.expand(-1, keys.shape[1]),
            relevance=relevance.expand(rows, keys.shape[1], 1, window),
        )
        return memory, state

    alone = tell(told.keys, told.values, MATTERING, torch.ones(()))
    pruned = tell(all_keys, all_values, 2 * MATTERING, relevance)
    whole = tell(all_keys, all_values, 2 * MATTERING, torch.ones(()))
    answers = [memory.read(state, told.keys.repeat(tried, 1, 1)).values for memory, state in (alone, pruned)]
    excess = {name: _judged(told.excess(*found)) for name, found in (("pruned", pruned), ("whole", whole))}
    asked = all_keys[:, 1::2].repeat(tried, 1, 1)
    learned = [(m.read(s, asked).values * noise.repeat(tried, 1, 1)).sum() for m, s in (pruned, whole)]
    return {
        "pruned_difference": (answers[0] - answers[1]).abs().max().item(),
        "pruned_excess": excess["pruned"],
        "unpruned_excess": excess["whole"],
        "pruned_excess_ratio": excess["pruned"] / excess["whole"],
        "noise_learned_pruned": abs(learned[0].item()) / (tried * noise.square().sum().item()),
        "noise_learned_unpruned": abs(learned[1].item()) / (tried * noise.square().sum().item()),
    }
