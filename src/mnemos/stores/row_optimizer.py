"""How a row of a table that is read sparsely follows its gradient.

It differs from how a parameter does in one way: everything that an optimiser knows, the number of steps
included, is kept for each row, so that a row read for the first time after a million steps of others
takes a first step. torch.optim.SparseAdam counts the steps of the whole table, and its correction for a
short past is then wrong for every row that is read seldom.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

Moments = tuple[Tensor, ...]


@dataclass(frozen=True)
class RowOptimizer:
    """How a row follows its gradient.

    Args:
        name: what saved states are recognised by.
        moments: tensors of the row's shape that it keeps for each row; all begin at zero.
        step: (rows, gradients, moments, steps) -> (new rows, new moments), in which `steps` counts
            each row's own, this one included, and is shaped to broadcast over rows.
    """

    name: str
    moments: int
    step: Callable[[Tensor, Tensor, Moments, Tensor], tuple[Tensor, Moments]]


def sgd(learning_rate: float) -> RowOptimizer:
    """Stochastic gradient descent."""
    return RowOptimizer("sgd", 0, partial(_sgd, learning_rate=learning_rate))


def _sgd(
    rows: Tensor, gradients: Tensor, moments: Moments, steps: Tensor, learning_rate: float
) -> tuple[Tensor, Moments]:
    return rows - learning_rate * gradients, ()


def adagrad(learning_rate: float, epsilon: float = 1e-10) -> RowOptimizer:
    """Adagrad (Duchi, Hazan & Singer 2011)."""
    return RowOptimizer("adagrad", 1, partial(_adagrad, learning_rate=learning_rate, epsilon=epsilon))


def _adagrad(
    rows: Tensor, gradients: Tensor, moments: Moments, steps: Tensor, learning_rate: float, epsilon: float
) -> tuple[Tensor, Moments]:
    squares = moments[0] + gradients.square()
    return rows - learning_rate * gradients / (squares.sqrt() + epsilon), (squares,)


def adam(
    learning_rate: float, betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8
) -> RowOptimizer:
    """Adam (Kingma & Ba 2015, algorithm 1). A row that is not read keeps its moments as they are."""
    return RowOptimizer("adam", 2, partial(_adam, learning_rate=learning_rate, betas=betas, epsilon=epsilon))


def _adam(
    rows: Tensor,
    gradients: Tensor,
    moments: Moments,
    steps: Tensor,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
) -> tuple[Tensor, Moments]:
    mean = moments[0].lerp(gradients, 1 - betas[0])  # m
    square = (betas[1] * moments[1]).addcmul_(gradients, gradients, value=1 - betas[1])  # v
    # The bias corrections are one number for each row: taken out of the division, they cost nothing.
    correction = (1 - betas[1] ** steps).sqrt()
    length = -learning_rate * correction / (1 - betas[0] ** steps)
    return rows.addcdiv(length * mean, square.sqrt().add_(epsilon * correction)), (mean, square)
