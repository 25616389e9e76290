"""Hopfield networks: patterns as the valleys of an energy, and what brings a state down into one.

The classical network (Hopfield 1982) keeps them in a matrix of couplings, dense networks (Krotov & Hopfield
2016; Demircigil et al. 2017) keep the patterns themselves and let a steeper function of the overlap decide;
both have units of +1 and -1. In the continuous network (Ramsauer et al. 2021) a state is any vector, and an
update is a step of attention.

Units of +1 and -1 have no gradient: their dynamics run without one. All else is differentiable.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

Rule = Callable[[Tensor, Tensor], Tensor]  # (couplings, pattern) -> the change of the couplings
Dynamics = Callable[[Tensor, Tensor, int], Tensor]  # (couplings, states, sweeps) -> states
Separation = Callable[[Tensor, int], Tensor]  # (overlaps with every pattern, units) -> energy

# A field, or a relative difference of energies, that is smaller is rounding: the unit stays as it is. Without
# it a tie would be broken by the order in which a processor happens to add.
TIE = 1e-6


def signs(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """+1 where a number is not below zero, -1 elsewhere: a state of the units, without a gradient."""
    return torch.where(x.detach() < 0, -1.0, 1.0).to(x)


# The classical network: Hopfield 1982.


def hebb(
    weights: Float[Tensor, "*rows keys keys"], patterns: Float[Tensor, "*rows keys"]
) -> Float[Tensor, "*rows keys keys"]:
    """What a pattern adds under Hebb's rule: ξ ξᵀ / N without the diagonal. Hopfield 1982, equation (2).

    Up to 0.138 N random patterns are found again with 1.6 % of wrong bits (Amit, Gutfreund & Sompolinsky
    1985); with more, all are lost at once.
    """
    scaled = patterns / patterns.shape[-1]
    return _without_diagonal(scaled.unsqueeze(-1) * patterns.unsqueeze(-2))


def storkey(
    weights: Float[Tensor, "*rows keys keys"], patterns: Float[Tensor, "*rows keys"]
) -> Float[Tensor, "*rows keys keys"]:
    """Hebb's rule less what the network already makes of the pattern. Storkey 1997, equation (3).

    (ξ_i ξ_j - ξ_i h_ji - h_ij ξ_j) / N, where h_ij is unit i's field without what i and j contribute.
    As local and incremental as Hebb's; holds N / sqrt(2 ln N) patterns.
    """
    weights = _without_diagonal(weights)
    field = weights @ patterns.unsqueeze(-1)
    # h_ij ξ_j = h_i ξ_j - w_ij, since ξ_j² = 1.
    heard = field * patterns.unsqueeze(-2) - weights
    own = patterns.unsqueeze(-1) * patterns.unsqueeze(-2)
    return _without_diagonal(own - heard - heard.mT) / patterns.shape[-1]


def pseudo_inverse(
    weights: Float[Tensor, "*rows keys keys"], patterns: Float[Tensor, "*rows keys"]
) -> Float[Tensor, "*rows keys keys"]:
    """The least symmetric change after which the pattern is its own field, W ξ = ξ. Personnaz et al. 1986.

    r rᵀ / (r · ξ) with r = ξ - W ξ. Pattern by pattern from zero this is the projection X X⁺ on all of them
    (Greville's recursion), and holds N patterns that are linearly independent. A pattern that the others
    span changes nothing. Not local: a coupling's change needs the whole residual.
    """
    residual = patterns - (weights @ patterns.unsqueeze(-1)).squeeze(-1)
    size = (residual * patterns).sum(-1)[..., None, None]
    floor = TIE * patterns.shape[-1]  # of a residual that is rounding
    change = residual.unsqueeze(-1) * residual.unsqueeze(-2) / size.clamp_min(floor)
    return torch.where(size > floor, change, 0)


def energy(
    weights: Float[Tensor, "*rows keys keys"], states: Float[Tensor, "*rows time keys"]
) -> Float[Tensor, "*rows time"]:
    """-½ sᵀ W s without the diagonal: Hopfield 1982, equation (7). No asynchronous step raises it."""
    return -0.5 * ((states @ _without_diagonal(weights)) * states).sum(-1)


def synchronous(
    weights: Float[Tensor, "*rows keys keys"], states: Float[Tensor, "*rows time keys"], sweeps: int = 1
) -> Float[Tensor, "*rows time keys"]:
    """All units turn to their fields at once, `sweeps` times (Little 1974).

    Fast, but the energy can rise, and two states can follow each other forever.
    """
    with torch.no_grad():
        couplings = _without_diagonal(weights).mT
        for _ in range(sweeps):
            before, states = states, _turned(states @ couplings, states)
            if _settled(states, before):
                break
    return states


def asynchronous(
    weights: Float[Tensor, "*rows keys keys"],
    states: Float[Tensor, "*rows time keys"],
    sweeps: int = 1,
    order: Sequence[int] | None = None,
) -> Float[Tensor, "*rows time keys"]:
    """Unit after unit turns to its field, as long as anything changes: Hopfield 1982, equation (1).

    No step raises the energy, so that it ends in a state in which every unit agrees with its field.

    Args:
        weights: symmetric couplings; a unit never hears itself, whatever lies on the diagonal.
        sweeps: how often all units have their turn at most.
        order: of the units in a sweep; None is from first to last. Hopfield's own is random: give a
            permutation. One unit alone makes a single step.
    """
    with torch.no_grad():
        couplings = _without_diagonal(weights)
        states = states.mT.contiguous()  # a unit of all states lies side by side
        for _ in range(sweeps):
            before, states = states, states.clone()
            for unit in range(states.shape[-2]) if order is None else order:
                here = slice(unit, unit + 1)
                own = states[..., here, :]
                own.copy_(_turned(couplings[..., here, :] @ states, own))
            if _settled(states, before):
                break
    return states.mT.contiguous()


# Dense networks: Krotov & Hopfield 2016. A separation F makes the energy -Σ F(ξ·s) over the patterns ξ. What
# is given here is a rising function of it, which is all that a unit needs to know to turn.


def polynomial(overlaps: Float[Tensor, "*rows slots"], units: int, degree: int) -> Float[Tensor, "*rows"]:
    """F(x) = xⁿ, scaled by Nⁿ: Krotov & Hopfield 2016, equation (1).

    n = 2 is the classical network with Hebb's rule; the capacity grows as N^(n-1). An even degree cannot
    tell a pattern from its negative.
    """
    return -(overlaps / units).pow(degree).sum(-1)


def exponential(overlaps: Float[Tensor, "*rows slots"], units: int) -> Float[Tensor, "*rows"]:
    """F(x) = exp(x), of which the logarithm: Demircigil et al. 2017. Holds about 2^(N/2) patterns."""
    return -overlaps.logsumexp(-1)


def dense_asynchronous(
    patterns: Float[Tensor, "*rows slots keys"],
    states: Float[Tensor, "*rows time keys"],
    separation: Separation,
    sweeps: int = 1,
) -> Float[Tensor, "*rows time keys"]:
    """Unit after unit takes the sign with the lower energy: Krotov & Hopfield 2016, equation (3).

    Args:
        patterns: of +1 and -1; a pattern of zeros stores nothing.
        separation: from (overlaps with every pattern, number of units) to a rising function of the energy.
        sweeps: how often all units have their turn at most.
    """
    with torch.no_grad():
        width = states.shape[-1]
        overlaps = states @ patterns.mT
        columns = [column.unsqueeze(-2) for column in patterns.unbind(-1)]
        for _ in range(sweeps):
            before, units = states, list(states.unbind(-1))
            for number, (own, column) in enumerate(zip(units, columns, strict=True)):
                others = overlaps - own.unsqueeze(-1) * column
                up, down = (separation(others + sign * column, width) for sign in (1.0, -1.0))
                rounding = TIE * torch.maximum(up.abs(), down.abs())
                turned = torch.where(up < down, torch.ones_like(own), -torch.ones_like(own))
                units[number] = torch.where((up - down).abs() > rounding, turned, own)
                overlaps = others + units[number].unsqueeze(-1) * column
            states = torch.stack(units, dim=-1)
            if _settled(states, before):
                break
    return states


# The continuous network: Ramsauer et al. 2021.


def association(
    queries: Float[Tensor, "*rows time keys"],
    keys: Float[Tensor, "*rows slots keys"],
    inverse_temperature: float,
    steps: int = 1,
    stored: Bool[Tensor, "*rows #time slots"] | None = None,
) -> Float[Tensor, "*rows time slots"]:
    """The weight of every stored pattern in the last of `steps` updates; zeros where nothing is stored."""
    state = _updated(queries, keys, inverse_temperature, steps - 1, stored)
    scores = (inverse_temperature * state) @ keys.mT
    if stored is None:
        return scores.softmax(-1)
    # Not -inf: a row without one stored pattern would be NaN. In place: nobody else has seen the scores.
    weights = scores.masked_fill_(~stored, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~stored, 0)


def retrieve(
    queries: Float[Tensor, "*rows time keys"],
    keys: Float[Tensor, "*rows slots keys"],
    values: Float[Tensor, "*rows slots width"],
    inverse_temperature: float,
    steps: int = 1,
    stored: Bool[Tensor, "*rows #time slots"] | None = None,
) -> Float[Tensor, "*rows time width"]:
    """Updates ξ ← X softmax(β Xᵀ ξ) `steps` times, the last with the values: Ramsauer et al. 2021, eq. (3).

    One step is attention, with the library's own kernel; each further one costs the same again. The number
    is fixed: to stop at convergence would make the work depend on the data, which does not compile, and one
    step is enough where patterns are apart (theorem 4).

    Args:
        queries: ξ, where to start.
        keys: X, the stored patterns.
        values: what each stands for; the keys again to have the pattern itself.
        inverse_temperature: β. Small, every state goes to the mean; large, to the nearest pattern.
        stored: false where a slot is to be left out, for every query or for each. Where a query has none
            left the answer is zero, the minimum of the energy of nothing.
    """
    state = _updated(queries, keys, inverse_temperature, steps - 1, stored)
    return _attend(state, keys, values, inverse_temperature, stored)


def continuous_energy(
    states: Float[Tensor, "*rows time keys"],
    keys: Float[Tensor, "*rows slots keys"],
    inverse_temperature: float,
    stored: Bool[Tensor, "*rows #time slots"] | None = None,
) -> Float[Tensor, "*rows time"]:
    """-lse(β, Xᵀ ξ) + ½ ξᵀ ξ + ln N / β + ½ max|x|²: Ramsauer et al. 2021, equation (2).

    Not below zero, and no update raises it. Where nothing is stored, ½ ξᵀ ξ.
    """
    scores = inverse_temperature * (states @ keys.mT)
    known = torch.ones_like(scores, dtype=torch.bool) if stored is None else stored.expand_as(scores)
    any_known = known.any(-1)
    scores = scores.masked_fill(~known, torch.finfo(scores.dtype).min)
    lengths = torch.where(known, keys.square().sum(-1).unsqueeze(-2), 0)
    longest = lengths.amax(-1) if lengths.shape[-1] else torch.zeros_like(any_known, dtype=scores.dtype)
    depth = (scores.logsumexp(-1) - known.sum(-1).clamp_min(1).log()) / inverse_temperature - longest / 2
    return states.square().sum(-1) / 2 - torch.where(any_known, depth, 0)


def _updated(
    states: Tensor, keys: Tensor, inverse_temperature: float, steps: int, stored: Tensor | None
) -> Tensor:
    for _ in range(steps):
        states = _attend(states, keys, keys, inverse_temperature, stored)
    return states


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, inverse_temperature: float, stored: Tensor | None
) -> Tensor:
    """Attention over the last two axes, on exactly four: with any other number torch has no fused kernel."""
    rows = queries.shape[:-2]
    for _ in range(4 - queries.dim()):
        queries, keys, values = (x.unsqueeze(-3) for x in (queries, keys, values))
        stored = None if stored is None else stored.unsqueeze(-3)
    found = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=stored, scale=inverse_temperature
    )
    return found.reshape(*rows, *found.shape[-2:])


def _without_diagonal(weights: Tensor) -> Tensor:
    own = torch.eye(weights.shape[-1], dtype=torch.bool, device=weights.device)
    return weights.masked_fill(own, 0)


def _turned(field: Tensor, units: Tensor) -> Tensor:
    """Every unit with the sign of its field, or as it was where there is none."""
    return torch.where(field.abs() > TIE, signs(field), units)


def _settled(states: Tensor, before: Tensor) -> bool:
    """Whether to stop: what has not changed never will. A compiled graph cannot ask, and goes on."""
    return not torch.compiler.is_compiling() and torch.equal(states, before)
