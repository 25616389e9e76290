"""How a memory's prediction is mixed with the model's, and how much it is trusted.

p = w p_memory + (1 - w) p_model (Khandelwal et al. 2020, eq. 3), where p_memory sums
exp(-d² / temperature) over the nearest records that agree on a token (eq. 2). A text is asked about
once; what was found is `Evidence`, from which the cost under any number of mixtures follows.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Evidence(NamedTuple):
    """What model and memory say of each token of a text, before they are mixed."""

    nats: Float[Tensor, " tokens"]  # negative log-probability under the model alone
    distances: Float[Tensor, "tokens found"]  # Euclidean, nearest first; infinite where fewer were found
    agrees: Bool[Tensor, "tokens found"]  # whether the record's value is the token


@dataclass(frozen=True)
class Mixture:
    """How much the memory counts: less the further away the nearest record is.

    The memory's weight is `weight` x 1 / (1 + exp((d - distance) / softness)), d the Euclidean distance
    to the nearest record; with an infinite `distance`, the paper's constant.

    Args:
        temperature: of p_memory's softmax over -d², above 0.
        weight: 0 (the model alone, bit for bit) to 1.
        distance: where the weight is half of its largest.
        softness: over what distance it falls, above 0.
    """

    temperature: float
    weight: float
    distance: float = math.inf
    softness: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.softness > 0):
            raise ValueError(
                f"temperature and softness must be above 0, not {self.temperature} and {self.softness}"
            )
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must be from 0 to 1, not {self.weight}")


def concatenate_evidence(parts: Sequence[Evidence]) -> Evidence:
    """The evidence on several texts, one after the other."""
    if not parts:
        raise ValueError("parts must hold the evidence on at least one text")
    return Evidence(*(torch.cat(column) for column in zip(*parts, strict=True)))


def mixture_weight(mixture: Mixture, distances: Float[Tensor, "tokens found"]) -> Float[Tensor, " tokens"]:
    """The memory's weight for each token: 0 where it found nothing."""
    nearest = _nearest(distances)
    gate = torch.sigmoid((mixture.distance - nearest) / mixture.softness)
    return torch.where(nearest.isfinite(), mixture.weight * gate, torch.zeros_like(nearest))


def _nearest(distances: Float[Tensor, "tokens found"]) -> Float[Tensor, " tokens"]:
    return distances[:, 0] if distances.shape[1] else distances.new_full(distances.shape[:1], torch.inf)


def memory_log_weights(
    temperature: float, distances: Float[Tensor, "tokens found"]
) -> Float[Tensor, "tokens found"]:
    """log of how much each record counts: softmax of -d² / temperature (eq. 2), -inf if nothing was found."""
    # Relative to the nearest, so that an infinite distance to all gives -inf and not NaN.
    nearest = distances[:, :1]
    excess = torch.where(distances.isfinite(), distances**2 - nearest**2, torch.inf)
    return (-excess / temperature).log_softmax(1).nan_to_num(nan=-torch.inf)


def mixed_nats(evidence: Evidence, mixture: Mixture) -> Float[Tensor, " tokens"]:
    """Negative log-probability of every token under the mixture (eq. 3)."""
    log_memory = _memory_log(evidence, mixture.temperature)
    return _mix(mixture_weight(mixture, evidence.distances), log_memory, evidence.nats)


def _memory_log(evidence: Evidence, temperature: float) -> Float[Tensor, " tokens"]:
    """log p_memory of each token; -inf where no record agrees."""
    log_weights = memory_log_weights(temperature, evidence.distances)
    return log_weights.masked_fill(~evidence.agrees, -torch.inf).logsumexp(1)


def _mix(weight: Tensor, log_memory: Tensor, nats: Tensor) -> Float[Tensor, " tokens"]:
    mixed = -torch.logaddexp(weight.log() + log_memory, (-weight).log1p() - nats)
    return torch.where(weight > 0, mixed, nats)  # the model alone, bit for bit


def fit_mixture(texts: Sequence[Evidence], *, unharmed: Sequence[Evidence] = ()) -> Mixture:
    """The mixture for a memory, from what it and the model said of validation texts.

    Searches a grid of temperatures, weights, distances and softnesses, each text's mean cost counted
    alike. Of all mixtures within one standard error of the best it takes the one that trusts the memory
    least (the one-standard-error rule of Breiman et al. 1984): a validation text is small, and what the
    memory knows nothing of should not pay for what it knows well. To leave a domain unharmed, give a
    validation text of it too.

    Args:
        unharmed: documents none of which may cost more than under the model alone. Documents of one
            domain differ more than chance within them would have it, so a mean over many hides harm.
    """
    if not texts:
        raise ValueError("texts must hold the evidence on at least one validation text")
    nearest = torch.cat([_nearest(evidence.distances) for evidence in texts])
    nearest = nearest[nearest.isfinite()]
    alone = Mixture(temperature=1.0, weight=0.0)
    fits = [_judge(alone, [(evidence, evidence.nats) for evidence in texts])]
    for temperature in _temperatures(nearest):
        asked = [(evidence, _memory_log(evidence, temperature)) for evidence in texts]
        guarded = [(evidence, _memory_log(evidence, temperature)) for evidence in unharmed]
        fits += [
            _judge(mixture, asked) for mixture in _gates(nearest, temperature) if not _harms(mixture, guarded)
        ]
    best = min(fits, key=lambda fit: fit.cost)
    near = [fit for fit in fits if fit.cost <= best.cost + best.error]
    return min(near, key=lambda fit: (fit.trust, fit.cost)).mixture


class _Fit(NamedTuple):
    mixture: Mixture
    cost: float  # mean nats per token
    error: float  # standard error of the cost
    trust: float  # mean weight of the memory


def _judge(mixture: Mixture, asked: list[tuple[Evidence, Tensor]]) -> _Fit:
    """Cost and trust on texts of which the memory's log-probabilities are known."""
    rows = []
    for evidence, log_memory in asked:
        weight = mixture_weight(mixture, evidence.distances)
        nats = _mix(weight, log_memory, evidence.nats).double()
        error = nats.std(unbiased=False) / len(nats) ** 0.5
        rows.append(torch.stack([nats.mean(), error**2, weight.double().mean()]))
    cost, square, trust = torch.stack(rows).mean(0).tolist()
    return _Fit(mixture, cost, (square / len(rows)) ** 0.5, trust)


def _harms(mixture: Mixture, asked: list[tuple[Evidence, Tensor]]) -> bool:
    """Whether any text costs more than under the model alone."""
    return any(
        bool(
            _mix(mixture_weight(mixture, evidence.distances), log_memory, evidence.nats).double().sum()
            > evidence.nats.double().sum()
        )
        for evidence, log_memory in asked
    )


def _temperatures(nearest: Float[Tensor, " tokens"]) -> list[float]:
    if not len(nearest):
        return []
    scale = max(float(nearest.median()) ** 2, 1e-6)
    return [scale * 2.0**power for power in range(-3, 3)]


def _gates(nearest: Float[Tensor, " tokens"], temperature: float) -> Iterator[Mixture]:
    """Constant weights, and weights that fall with distance, on the scale of the distances found."""
    deciles = nearest.sort().values[((len(nearest) - 1) * torch.arange(11)) // 10]
    spread = max(float(deciles[-2] - deciles[1]), 1e-6)
    between = (deciles[1:] + deciles[:-1]) / 2  # so that a gap between two kinds of text has one
    for weight in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        yield Mixture(temperature, weight)
        for distance in between.tolist():
            for part in (0.05, 0.15, 0.4):
                yield Mixture(temperature, weight, distance, part * spread)


def perplexity(nats: Float[Tensor, " tokens"]) -> float:
    """exp of the mean cost per token."""
    return float(nats.double().mean().exp())
