"""All products of up to so many of a key's numbers: more features, and with them more room."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class PolynomialFeatures(nn.Module):
    """φ_p of Behrouz et al. 2025, "ATLAS", section 3.1: every monomial x^β of degree |β| up to p.

    The monomials are weighted so that features multiply as a polynomial of the keys' inner product,

        φ(q) · φ(k) = Σ_i a_i (q · k)^i

    whose coefficients a_i are learned, from 1 / i! on: the series of exp, the kernel of attention. A
    coefficient is kept as its root, and so cannot become negative. d numbers have C(d + p, p) features.

    Args:
        size: numbers of a key.
        degree: p.
    """

    factors: Tensor
    arrangements: Tensor

    def __init__(self, size: int, degree: int) -> None:
        super().__init__()
        self.size, self.degree = size, degree
        terms = [_monomials(size, number) for number in range(degree + 1)]
        # A key is continued by a one, which a monomial of lower degree takes for what it lacks.
        padded = [nn.functional.pad(term, (0, degree - term.shape[1]), value=size) for term in terms]
        self.register_buffer("factors", torch.cat(padded), persistent=False)
        counts = torch.cat([_arrangements(term) for term in terms])
        self.register_buffer("arrangements", counts, persistent=False)
        self.lengths = [len(term) for term in terms]
        self.roots = nn.Parameter(
            torch.tensor([math.factorial(i) ** -0.5 for i in range(degree + 1)])
        )  # √a_i

    @property
    def width(self) -> int:
        """How many features there are."""
        return sum(self.lengths)

    def forward(self, keys: Float[Tensor, "*shape keys"]) -> Float[Tensor, "*shape features"]:
        continued = nn.functional.pad(keys, (0, 1), value=1.0)
        products = self.arrangements.to(keys.dtype).sqrt()
        for factor in self.factors.unbind(1):
            products = products * continued.index_select(-1, factor)
        roots = [root.expand(length) for root, length in zip(self.roots.unbind(), self.lengths, strict=True)]
        return torch.cat(roots).to(keys.dtype) * products


def _monomials(size: int, degree: int) -> Tensor:
    """Which numbers each monomial multiplies, in ascending order: (monomials, degree)."""
    if degree == 0:
        return torch.zeros(1, 0, dtype=torch.int64)
    return torch.combinations(torch.arange(size), degree, with_replacement=True).view(-1, degree)


def _arrangements(monomials: Tensor) -> Tensor:
    """In how many orders the numbers of each monomial can be written: |β|! / β!."""
    count = run = torch.ones(len(monomials), dtype=torch.int64)
    for place in range(monomials.shape[1]):
        if place:
            run = torch.where(monomials[:, place] == monomials[:, place - 1], run + 1, 1)
        count = count * (place + 1) // run
    return count
