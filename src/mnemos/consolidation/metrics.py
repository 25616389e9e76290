"""What was learned, what was kept and what helped, from the accuracies on every context after every context.

All of them take the matrix R of Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory for Continual Learning",
section 2: R[i, j] is the accuracy on context j after context i was learned, NaN where it was not measured.
What they return is in the units of R. To ask after fewer contexts, give the upper left part of the matrix.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def average_accuracy(accuracies: Float[Tensor, "contexts contexts"]) -> Float[Tensor, ""]:
    """ACC = 1/T Σ_i R[T, i]: over all T contexts, after the last. Lopez-Paz & Ranzato 2017, equation (2).

    Raises:
        ValueError: no square matrix, or the last row is not measured.
    """
    every = _contexts(accuracies, 1)
    return _measured(accuracies, every[-1].expand_as(every), every).mean()


def backward_transfer(accuracies: Float[Tensor, "contexts contexts"]) -> Float[Tensor, ""]:
    """BWT = 1/(T - 1) Σ_(i < T) R[T, i] - R[i, i]: what later contexts did to earlier ones, below 0 harm.

    Lopez-Paz & Ranzato 2017, equation (3).

    Raises:
        ValueError: no square matrix of two contexts or more, or the last row or the diagonal is not measured.
    """
    every = _contexts(accuracies, 2)
    before = every[:-1]
    after = _measured(accuracies, every[-1].expand_as(before), before)
    return (after - _measured(accuracies, before, before)).mean()


def forward_transfer(
    accuracies: Float[Tensor, "contexts contexts"], baseline: Float[Tensor, " contexts"]
) -> Float[Tensor, ""]:
    """FWT = 1/(T - 1) Σ_(i > 1) R[i - 1, i] - b[i]: what earlier contexts did for the next one.

    Lopez-Paz & Ranzato 2017, equation (4). In the class-incremental scenario it says little, as a class
    that was never seen is never answered.

    Args:
        baseline: b, the accuracies of the network before it learned anything; the first does not count.

    Raises:
        ValueError: no square matrix of two contexts or more, or the diagonal above the main one or the
            baseline is not measured.
    """
    every = _contexts(accuracies, 2)
    if baseline.shape != every.shape:
        raise ValueError(f"baseline must have {len(every)} contexts, not the shape {tuple(baseline.shape)}")
    if baseline[1:].isnan().any():
        raise ValueError(f"baseline must be measured for every context but the first, not be {baseline}")
    return (_measured(accuracies, every[:-1], every[1:]) - baseline[1:]).mean()


def forgetting(accuracies: Float[Tensor, "contexts contexts"]) -> Float[Tensor, ""]:
    """F = 1/(T - 1) Σ_(j < T) max_(l < T) R[l, j] - R[T, j]: from the best that each context ever was.

    Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning: Understanding Forgetting and
    Intransigence". Below 0, the contexts are better at the end than ever before. It is at least the negative
    of `backward_transfer`, which compares with what a context was when it was just learned. The best is that
    of what was measured.

    Raises:
        ValueError: no square matrix of two contexts or more, the last row is not measured, or a context never
            was before.
    """
    every = _contexts(accuracies, 2)
    before = every[:-1]
    after = _measured(accuracies, every[-1].expand_as(before), before)
    earlier = accuracies[:-1, :-1]
    best = earlier.masked_fill(earlier.isnan(), float("-inf")).amax(0)
    never = (best == float("-inf")).nonzero().flatten().tolist()
    if never:
        raise ValueError(f"accuracies must be measured before the last context for contexts {never} too")
    return (best - after).mean()


def _contexts(accuracies: Tensor, least: int) -> Tensor:
    """The numbers of the contexts."""
    if accuracies.ndim != 2 or len(accuracies) != accuracies.shape[1] or len(accuracies) < least:
        shape = tuple(accuracies.shape)
        raise ValueError(f"accuracies must be (contexts, contexts) of at least {least}, not {shape}")
    return torch.arange(len(accuracies), device=accuracies.device)


def _measured(accuracies: Tensor, learned: Tensor, asked: Tensor) -> Tensor:
    """The accuracies on the contexts `asked`, each after one `learned`."""
    values = accuracies[learned, asked]
    missing = torch.stack([learned, asked], dim=1)[values.isnan()].tolist()
    if missing:
        raise ValueError(f"accuracies must be measured at {missing} too: after which context, on which")
    return values
