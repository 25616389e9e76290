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

NOTHING = 1e-3  # nats per token: so small a loss is none, and no gate is ever shut entirely


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


def fit_mixture(groups: Sequence[Sequence[Evidence]]) -> Mixture:
    """The mixture for a memory, from what it and the model said of validation documents.

    Searches a grid of temperatures, weights, distances and softnesses for the largest saving over the
    model alone, in nats per token, each group counted alike. Only mixtures are considered that save in
    every group, to two standard errors: a memory that helps in one domain must not be paid for in
    another, and validation text is small. Errors are counted by document, since documents of one domain
    differ more than chance within them would have it (a group of one document: by token). If there is
    no such mixture, the model is left alone.

    Args:
        groups: for each kind of text, the evidence on documents that are neither in the memory nor in
            what the model was trained on.
    """
    if not groups or not all(groups):
        raise ValueError("groups must hold at least one group, each with the evidence on a document")
    nearest = torch.cat([_nearest(evidence.distances) for group in groups for evidence in group])
    nearest = nearest[nearest.isfinite()]
    best, most = Mixture(temperature=1.0, weight=0.0), 0.0
    for temperature in _temperatures(nearest):
        asked = [[(evidence, _memory_log(evidence, temperature)) for evidence in group] for group in groups]
        for mixture in _gates(nearest, temperature):
            savings = [_saving(mixture, group) for group in asked]
            total = sum(saving.mean for saving in savings)
            if total > most and all(saving.mean - 2 * saving.error > -NOTHING for saving in savings):
                best, most = mixture, total
    return best


class _Saving(NamedTuple):
    """What a mixture saves over the model alone, in nats per token."""

    mean: float
    error: float  # standard error of the mean


def _saving(mixture: Mixture, asked: list[tuple[Evidence, Tensor]]) -> _Saving:
    """The saving on documents of which the memory's log-probabilities are known."""
    saved = [
        (
            evidence.nats - _mix(mixture_weight(mixture, evidence.distances), log_memory, evidence.nats)
        ).double()
        for evidence, log_memory in asked
    ]
    sums, sizes = torch.stack([part.sum() for part in saved]), torch.tensor([len(part) for part in saved])
    if len(saved) == 1:
        sums, sizes = saved[0], torch.ones(len(saved[0]))
    mean = sums.sum() / sizes.sum()
    spread = (sums - sizes * mean).square().sum() * len(sums) / max(len(sums) - 1, 1)
    return _Saving(float(mean), float(spread.sqrt() / sizes.sum()))


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
