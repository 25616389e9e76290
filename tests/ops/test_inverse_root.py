"""The inverse root beside Newton-Schulz, of whose iterations it is the product."""

import pytest
import torch

from mnemos.ops import inverse_root as module
from mnemos.ops.inverse_root import inverse_root
from mnemos.ops.newton_schulz import orthogonalised

WAYS = {
    "eigenvalues": (
        module._by_eigenvalues,
        lambda kept, gradient, steps, _: module._back_by_eigenvalues(kept, gradient, steps),
    ),
    "products": (module._by_products, module._back_by_products),
}


def with_values(values: list[float], into: int = 40, out: int = 12) -> torch.Tensor:
    """Matrices of these singular values, and of no other above zero."""
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(2, size, len(values), generator=generator, dtype=torch.float64))[0]
        for size in (into, out)
    )
    return left * torch.tensor(values, dtype=torch.float64) @ right.mT


CASES = {
    "even": with_values([1.0] * 12),
    "spread": with_values([2.0**-i for i in range(12)]),
    "few": with_values([3.0, 0.01, 0.002]),
    "one huge": with_values([1e6, 1.0, 1.0, 0.5]),
    "small": with_values([1e-8, 3e-9]),
    "none": torch.zeros(2, 40, 12, dtype=torch.float64),
}


class Root(torch.autograd.Function):
    """The inverse root with its gradient, for autograd."""

    @staticmethod
    def forward(ctx, grams, way, *options):
        ctx.way, ctx.options = way, options
        ctx.found = WAYS[way][0](grams, *options)
        return ctx.found.root

    @staticmethod
    def backward(ctx, gradient):
        steps, shortest, _ = ctx.options
        to_grams = WAYS[ctx.way][1](ctx.found.kept, gradient, steps, shortest)
        return to_grams, None, None, None, None


def root(matrices: torch.Tensor, way: str, steps: int = 5, shortest: float = 1e-6) -> torch.Tensor:
    wide = matrices.double()
    return Root.apply(wide.mT @ wide, way, steps, shortest, matrices.dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_matrix_times_its_root_is_the_matrix_orthogonalised(case: str, way: str, steps: int) -> None:
    matrices = CASES[case]
    found = matrices @ root(matrices, way, steps)
    torch.testing.assert_close(found, orthogonalised(matrices, steps), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_so_is_its_gradient(case: str, way: str) -> None:
    matrices = CASES[case].clone().requires_grad_()
    upstream = torch.randn(matrices.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(matrices @ root(matrices, way), matrices, upstream)
    (expected,) = torch.autograd.grad(orthogonalised(matrices), matrices, upstream)
    torch.testing.assert_close(gradient, expected, atol=1e-9 * expected.abs().max().item(), rtol=1e-9)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_in_float32_it_errs_little_more_than_newton_schulz(case: str, way: str) -> None:
    """Also in directions of a thousandth of the length, whose square float32 would lose beside 1."""
    matrices = CASES[case].float().requires_grad_()
    found, expected = matrices @ root(matrices, way), orthogonalised(matrices.detach().double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)
    assert torch.autograd.grad(found.sum(), matrices)[0].isfinite().all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_more_steps_do_not_raise_what_rounds_to_less_than_zero(case: str, way: str) -> None:
    matrices = CASES[case].float()
    found = matrices @ root(matrices, way, 12)
    assert torch.linalg.svdvals(found).max() < 1.5


@pytest.mark.parametrize("way", WAYS)
def test_its_gradient_is_that_of_finite_differences(way: str) -> None:
    matrices = with_values([1.0, 0.5, 0.1], 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: root(x, way, 3), matrices)
    short = (1e-3 * matrices.detach()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: root(x, way, 2, 1e-3), short)


def test_what_is_not_finite_stays_with_its_matrix() -> None:
    grams = torch.eye(3, dtype=torch.float64).repeat(3, 1, 1)
    grams[1, 0, 0] = torch.nan
    grams[2, 1, 1] = torch.inf
    found = inverse_root(grams).root
    torch.testing.assert_close(found[0], inverse_root(grams[:1]).root[0])
    assert not found[1:].isfinite().any()
