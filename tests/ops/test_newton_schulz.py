"""Newton-Schulz in the limits where what it must give is known."""

import pytest
import torch

from mnemos.ops.newton_schulz import orthogonalised


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_values(values: torch.Tensor, into: int, out: int) -> torch.Tensor:
    """A matrix of these singular values."""
    left, right = (torch.linalg.qr(random(size, len(values), seed=size))[0] for size in (into, out))
    return left * values @ right.mT


@pytest.mark.parametrize("shape", [(7, 7), (5, 12), (12, 5), (1, 6), (6, 1)])
def test_it_keeps_the_directions_and_brings_their_strengths_near_one(shape: tuple[int, int]) -> None:
    matrices = random(3, *shape)
    found = orthogonalised(matrices)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.65
    assert values.max() < 1.25
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    turned = left.mT @ found @ right.mT  # diagonal, if the directions are the same
    torch.testing.assert_close(turned, torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1)))


def test_weak_directions_are_raised_and_missing_ones_are_not() -> None:
    weak = with_values(torch.tensor([1.0, 0.3, 0.02, 0.005], dtype=torch.float64), 9, 6)
    assert torch.linalg.svdvals(orthogonalised(weak))[:4].min() > 0.65
    missing = with_values(torch.tensor([2.0, 0.5], dtype=torch.float64), 9, 6)
    values = torch.linalg.svdvals(orthogonalised(missing))
    assert values[:2].min() > 0.65
    assert values[2:].max() < 1e-12


def test_length_does_not_matter() -> None:
    matrices = random(2, 4, 6)
    torch.testing.assert_close(orthogonalised(1e4 * matrices), orthogonalised(matrices))
    torch.testing.assert_close(orthogonalised(1e-2 * matrices), orthogonalised(matrices))


def test_zero_stays_zero_with_a_finite_gradient() -> None:
    for dtype in (torch.float32, torch.float64):
        nothing = torch.zeros(2, 3, 4, dtype=dtype, requires_grad=True)
        found = orthogonalised(nothing)
        assert not found.any()
        (gradient,) = torch.autograd.grad(found.sum(), nothing)
        assert gradient.isfinite().all()


def test_no_steps_only_scale() -> None:
    matrices = random(2, 3, 4)
    lengths = matrices.norm(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(orthogonalised(matrices, steps=0), matrices / lengths)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_its_gradient_is_that_of_finite_differences(shape: tuple[int, int]) -> None:
    matrices = random(2, *shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: orthogonalised(x, steps=3), matrices)
    short = (1e-3 * random(2, *shape, seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: orthogonalised(x, steps=2, shortest=1e-3), short)
