"""The delta rule: associations that are written again, and all forms of it held to one another.

Schlag, Irie & Schmidhuber 2021, section 6.1: where keys come back with new values, the delta rule keeps the
last value and a sum of outer products cannot. Written once, random keys tell the other way round: the sum
is then the better memory when answers are decoded by their nearest value. The study `linear-associator`
measures that.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mnemos.memories import DeltaRule, FastWeights, GatedDelta, GatedDelta2, KimiDelta
from mnemos.ops.delta_rule import delta_rule_chunked, delta_rule_loop, unit
from mnemos.progress import Advance
from mnemos.studies.study import Figure, Study, Threshold
from mnemos.tasks.association import codebook, random_pairs, rebound, right

SIZE = 64  # d, of keys and values
CODEBOOK = 512  # values to choose from
DECAYS = ("undecayed", "by_head", "by_channel")
ODD_SIZES = [(1, 1, 1, 3, 2, 4), (2, 63, 3, 17, 9, 16), (1, 100, 2, 33, 31, 7), (3, 129, 1, 8, 40, 64)]


def measure(seed: int, full: bool, advance: Advance) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    repetitions = 200 if full else 50
    measured: dict[str, Any] = {"repetitions": repetitions}
    advance(0.0, "overwriting 32 keys 10 times")
    measured |= _overwrite(repetitions, generator)
    advance(0.5, "the chunked form against the loop")
    torch.manual_seed(seed)  # the layers' weights
    measured |= _forms(generator) | _reductions(generator)
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
    differences: dict[str, float] = {}
    for decay in DECAYS:
        values = gradients = 0.0
        for batch, time, heads, keys, width, chunk_size in ODD_SIZES:
            parts = _parts(batch, time, heads, keys, width, decay, generator)
            reset = torch.rand(batch, time, generator=generator) < 0.05
            loop = delta_rule_loop(**parts, reset=reset)
            chunks = delta_rule_chunked(**parts, reset=reset, chunk_size=chunk_size)
            values = max(values, *(_distance(a, b) for a, b in zip(loop, chunks, strict=True)))
            probes = [torch.randn(out.shape, generator=generator) for out in loop]
            slopes = [torch.autograd.grad(form, list(parts.values()), probes) for form in (loop, chunks)]
            gradients = max(gradients, *(_distance(a, b) for a, b in zip(*slopes, strict=True)))
        differences |= {f"{decay}_difference": values, f"{decay}_gradient_difference": gradients}
    return differences


def _parts(
    batch: int, time: int, heads: int, keys: int, width: int, decay: str, generator: torch.Generator
) -> dict[str, Any]:
    """A problem of the gated delta rule, with a decay for none, each head or each channel."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    key, strength = unit(normal(batch, time, heads, keys)), normal(batch, time, heads, 1).sigmoid()
    parts = {
        "queries": unit(normal(batch, time, heads, keys)),
        "keys": key,
        "written": strength * normal(batch, time, heads, width),
        "erased": strength * key,
        "weights": normal(batch, heads, width, keys),
    }
    if decay != "undecayed":
        parts["log_decay"] = -normal(batch, time, heads, 1 if decay == "by_head" else keys).exp()
    return {name: part.requires_grad_() for name, part in parts.items()}


@torch.no_grad()
def _reductions(generator: torch.Generator) -> dict[str, float]:
    """How far each layer is from the one that it contains, once its gates are set to be that one's."""
    heads, size = 2, 16
    sizes: dict[str, Any] = {"heads": heads, "key_size": size, "value_size": size}
    rule, gated = DeltaRule(SIZE, **sizes), GatedDelta(SIZE, **sizes)
    channels, apart = KimiDelta(SIZE, **sizes), GatedDelta2(SIZE, **sizes)
    inputs = torch.randn(2, 50, SIZE, generator=generator)

    def difference(general: FastWeights, special: FastWeights) -> float:
        (outputs, state), (expected, last) = general(inputs), special(inputs)
        return max(_distance(outputs, expected), _distance(state.weights, last.weights))

    def repeated(weights: Tensor) -> Tensor:
        """Of each head for each channel."""
        return weights.repeat_interleave(size, dim=0)

    measured = {}
    shared = {name: weights for name, weights in gated.state_dict().items() if "step" not in name}
    for layer in (rule, channels, apart):
        layer.load_state_dict(shared, strict=False)
    channels.to_step.weight.zero_()[:heads] = gated.step.weight
    channels.step.weight.copy_(repeated(torch.eye(heads, size)))
    channels.step.bias.copy_(repeated(gated.step.bias))
    measured["channels_alike_are_gated"] = difference(channels, gated)
    apart.step.weight.copy_(repeated(gated.step.weight))
    apart.step.bias.copy_(repeated(gated.step.bias))
    for gate in (apart.erase, apart.write_gate):
        gate.weight.copy_(repeated(gated.strength.weight))
        gate.bias.copy_(repeated(gated.strength.bias))
    measured["gates_alike_are_channels"] = difference(apart, channels)
    gated.log_rate.fill_(-torch.inf)  # a rate of zero
    measured["gated_that_keeps_all_is_delta"] = difference(gated, rule)
    return measured


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
        **{f"{decay}_difference": Threshold("<=", 1e-4) for decay in DECAYS},
        **{f"{decay}_gradient_difference": Threshold("<=", 1e-4) for decay in DECAYS},
        "channels_alike_are_gated": Threshold("<=", 1e-4),
        "gates_alike_are_channels": Threshold("<=", 1e-4),
        "gated_that_keeps_all_is_delta": Threshold("<=", 1e-4),
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
