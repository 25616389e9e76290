"""What Muon is for: directions that keys rarely have are learned as fast as all others.

The gradient of a pair has its key in it, so descent learns a direction by how much of it keys have, and its
rate is bounded by the greatest. An orthogonal step goes equally far in all. It goes as far when nothing is
left to learn: at a constant rate η the matrix steps to and fro about the right one, half a step away.
"""

import itertools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mnemos.progress import Advance, between
from mnemos.studies.atlas_window import bare

SIZE, WINDOW = 16, 16
RAREST, RARE = 0.03, 4  # of the first direction of keys, how much of the last; how many count as rare
LENGTHS = (16, 32, 64, 128, 256, 512)  # steps after which it is asked
CHOSEN_AT = 128  # steps after which the best rate and momentum are chosen
RATES = tuple(2.0**-k for k in range(-1, 9))
MOMENTA = (0.0, 0.5, 0.9)
ENDING = (0.25, 0.125, 0.0625)  # rates of which is asked where they end


@torch.no_grad()
def errors(
    seed: int,
    newton_schulz_steps: int,
    rates: Float[Tensor, "tried time"],
    momenta: Float[Tensor, "tried"],
    streams: int,
    advance: Advance,
) -> dict[int, Float[Tensor, "tried streams directions"]]:
    """How much of a matrix is missing in every direction, after each of `LENGTHS` of steps."""
    generator = torch.Generator().manual_seed(seed)
    tried, length = rates.shape
    scales = RAREST ** torch.linspace(0, 1, SIZE)
    keys = functional.normalize(torch.randn(streams, length, SIZE, generator=generator) * scales, dim=2)
    true = functional.normalize(torch.randn(streams, SIZE, SIZE, generator=generator), dim=2)
    memory = bare(SIZE, WINDOW, newton_schulz_steps)
    state = memory.initial_state(tried * streams)
    told = (
        keys.repeat(tried, 1, 1),
        (keys @ true).repeat(tried, 1, 1),
        rates.repeat_interleave(streams, 0),
        momenta.repeat_interleave(streams).unsqueeze(1).expand(-1, length),
    )
    directions = torch.eye(SIZE).expand(tried * streams, -1, -1)
    found = {}
    for start, end in itertools.pairwise((0, *LENGTHS)):
        advance(start / length, f"{'Muon' if newton_schulz_steps else 'descent'}: {start} steps")
        key, value, rate, momentum = (x[:, start:end] for x in told)
        state = memory.write(state, key, value, rate=rate, momentum=momentum)
        answers = memory.read(state, directions).values.unflatten(0, (tried, streams))
        found[end] = (answers - true).square().sum(3)
    return found


def muon(seed: int, streams: int, advance: Advance) -> dict[str, Any]:
    """Rare directions by steps, with the best of all rates and momenta, and where constant rates end.

    What is best is chosen on the first half of the streams; what is reported is of the second.
    """
    grid = list(itertools.product(MOMENTA, RATES))
    momenta, rates = (torch.tensor(column) for column in zip(*grid, strict=True))
    measured: dict[str, Any] = {"rare": {}, "by_direction": {}, "chosen": {}}
    for number, (name, newton_schulz_steps) in enumerate({"descent": 0, "muon": 5}.items()):
        part = between(advance, 0.4 * number, 0.4 * (number + 1))
        constant = rates.unsqueeze(1).expand(-1, LENGTHS[-1])
        found = errors(seed, newton_schulz_steps, constant, momenta, 2 * streams, part)
        best = int(found[CHOSEN_AT][:, :streams].mean((1, 2)).nan_to_num(torch.inf).argmin())
        missing = {length: error[best, streams:].mean(0) for length, error in found.items()}
        measured["rare"][name] = {str(n): error[-RARE:].mean().item() for n, error in missing.items()}
        measured["by_direction"][name] = missing[CHOSEN_AT].tolist()
        measured["chosen"][name] = dict(zip(("momentum", "rate"), grid[best], strict=True))
    rare = measured["rare"]
    return {
        **measured,
        "rare_ratio": rare["muon"][str(CHOSEN_AT)] / rare["descent"][str(CHOSEN_AT)],
        "late_rare_ratio": rare["muon"][str(LENGTHS[-1])] / rare["descent"][str(LENGTHS[-1])],
        **_endings(seed, streams, between(advance, 0.8, 1.0)),
    }


def _endings(seed: int, streams: int, advance: Advance) -> dict[str, Any]:
    """Where Muon ends at rates that stay, and at rates that fall to zero."""
    steps = LENGTHS[-1]
    rates = torch.tensor(ENDING).unsqueeze(1).expand(-1, steps)
    falling = rates * (1 - torch.arange(steps) / steps)
    tried = torch.cat([rates, falling])
    found = errors(seed, 5, tried, torch.zeros(len(tried)), streams, advance)[steps].mean((1, 2))
    constant, fallen = found.sqrt().chunk(2)
    away = [distance / rate for distance, rate in zip(constant.tolist(), ENDING, strict=True)]
    return {
        "steps_away": dict(zip(map(str, ENDING), away, strict=True)),
        "from_half_a_step": max(abs(distance - 0.5) for distance in away),
        "falling_rate_error": fallen.max().item(),
    }
