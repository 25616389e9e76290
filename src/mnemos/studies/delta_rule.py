"""The delta rule: associations that are written again, and the chunked form held to the loop.

Schlag, Irie & Schmidhuber 2021, section 6.1: where keys come back with new values, the delta rule keeps the
last value and a sum of outer products cannot. Written once, random keys tell the other way round: the sum
is then the better memory when answers are decoded by their nearest value. The study `linear-associator`
measures that.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mnemos.memories.delta_rule import DeltaRule
from mnemos.ops.delta_rule import delta_rule_chunked, delta_rule_loop, unit
from mnemos.progress import Advance
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.association import codebook, random_pairs, rebound, right

SIZE = 64  # d, of keys and values
CODEBOOK = 512  # values to choose from
ODD_SIZES = [(1, 1, 1, 3, 2, 4), (2, 63, 3, 17, 9, 16), (1, 100, 2, 33, 31, 7), (3, 129, 1, 8, 40, 64)]


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    repetitions = 200 if full else 50
    measured: dict[str, Any] = {"repetitions": repetitions}
    advance(0.0, "overwriting 32 keys 10 times")
    measured |= _overwrite(repetitions, generator)
    advance(0.5, "the chunked form against the loop")
    measured |= _forms(generator)
    measured["repeated_key_error"] = _repeated_key(generator)
    return measured


def _overwrite(repetitions: int, generator: torch.Generator) -> dict[str, float]:
    """32 keys, each bound anew in each of 10 rounds, in an order of its own: who answers the last value?"""
    values = codebook(repetitions, CODEBOOK, SIZE, generator)
    rounds = list(rebound(10, random_pairs(32, SIZE, values, generator), values, generator))
    memory = DeltaRule(SIZE)
    delta = memory.initial_state(repetitions)
    hebb = torch.zeros(repetitions, SIZE, SIZE)
    for pairs in rounds:
        delta = memory.write(delta, pairs.keys, pairs.values)
        hebb = hebb + pairs.values.mT @ pairs.keys
    keys, labels = rounds[-1].keys, rounds[-1].labels
    return {
        "overwrite_delta": right(memory.read(delta, keys).values, values, labels).double().mean().item(),
        "overwrite_hebb": right(keys @ hebb.mT, values, labels).double().mean().item(),
    }


def _forms(generator: torch.Generator) -> dict[str, float]:
    """The greatest difference between loop and chunks, of values and of all gradients, resets included."""
    values = gradients = 0.0
    for batch, time, heads, keys, width, chunk_size in ODD_SIZES:
        shapes = [(batch, time, heads, keys)] * 2 + [(batch, time, heads, width), (batch, time, heads)]
        parts = [torch.randn(shape, generator=generator) for shape in [*shapes, (batch, heads, width, keys)]]
        parts = [
            x.requires_grad_()
            for x in (unit(parts[0]), unit(parts[1]), parts[2], parts[3].sigmoid(), parts[4])
        ]
        reset = torch.rand(batch, time, generator=generator) < 0.05
        forms: list[Callable[..., Any]] = [
            delta_rule_loop,
            partial(delta_rule_chunked, chunk_size=chunk_size),
        ]
        loop, chunks = (form(*parts, reset) for form in forms)
        values = max(values, *(_distance(a, b) for a, b in zip(loop, chunks, strict=True)))
        probes = [torch.randn(out.shape, generator=generator) for out in loop]
        slopes = [torch.autograd.grad(form, parts, probes) for form in (loop, chunks)]
        gradients = max(gradients, *(_distance(a, b) for a, b in zip(*slopes, strict=True)))
    return {"form_difference": values, "form_gradient_difference": gradients}


def _distance(left: Tensor, right: Tensor) -> float:
    return (left - right).detach().abs().max().item()


def _repeated_key(generator: torch.Generator) -> float:
    """How far the answer is from the last value of a key that was written twice with strength 1."""
    memory = DeltaRule(SIZE)
    keys, values = (torch.randn(1, 40, SIZE, generator=generator) for _ in range(2))
    keys = functional.normalize(torch.cat([keys, keys[:, :1]], dim=1), dim=-1)
    values = torch.cat([values, -3 * values[:, :1]], dim=1)
    state = memory.write(memory.initial_state(1), keys, values)
    return _distance(memory.read(state, keys[:, -1:]).values, values[:, -1:])


STUDY = Study(
    name="delta-rule",
    title="The delta rule overwrites where a sum cannot (Schlag et al. 2021; Yang et al. 2024)",
    measure=measure,
    thresholds={
        "overwrite_delta": Threshold(">=", 0.95),
        "overwrite_hebb": Threshold("<=", 0.2),
        "form_difference": Threshold("<=", 1e-4),
        "form_gradient_difference": Threshold("<=", 1e-4),
        "repeated_key_error": Threshold("<=", 1e-5),
    },
    paper=[
        Figure(
            "loss where keys come back, sum of outer products against delta rule",
            "the sum fails, the delta rule does not (a figure without a table)",
            "Schlag, Irie & Schmidhuber 2021, section 6.1",
        ),
        Figure(
            "perplexity on WikiText of DeltaNet, 1.3B parameters, 100B tokens",
            17.71,
            "Yang, Kautz & Hatamizadeh 2025, Gated Delta Networks",
        ),
        Figure(
            "needle in a haystack (S-NIAH-1) at 8k of the same DeltaNet, %",
            98.8,
            "Yang, Kautz & Hatamizadeh 2025, Gated Delta Networks",
        ),
    ],
)
