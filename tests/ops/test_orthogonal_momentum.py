"""Momenta that are never made, beside the same ones made."""

import pytest
import torch

from mnemos.ops.newton_schulz import orthogonalised
from mnemos.ops.orthogonal_momentum import Momenta, all_learned, last, learned, orthogonal

SHAPES = {"tall": (9, 4), "wide": (3, 7), "square": (5, 5)}


def momenta(into: int, out: int, dtype: torch.dtype = torch.float64) -> Momenta:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 4, 1), (2, 3, into, out), (2, 3, 4, 6), (2, 3, 6, into), (2, 3, 6, out)]
    return Momenta(
        *(torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes)
    )


def made(of: Momenta) -> torch.Tensor:
    kept, before, shares, inputs, slopes = of
    steps = torch.einsum("bhij,bhjm,bhjn->bhimn", shares, inputs, slopes)
    return kept.unsqueeze(-1) * before.unsqueeze(2) + steps


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_read_and_what_is_left_are_those_of_the_matrices(shape: str) -> None:
    into, out = SHAPES[shape]
    of = momenta(into, out)
    given, end, x, upstream = (
        torch.randn(*size, dtype=torch.float64)
        for size in ((2, 3, 5, 4), (2, 3, 1, 4), (2, 3, 5, into), (into, out))
    )
    x.requires_grad_()
    layer, matrices = orthogonal(of, 5), orthogonalised(made(of))
    found = learned(layer, given, x), all_learned(layer, end), last(of)
    expected = (
        torch.einsum("bhti,bhtm,bhimn->bhtn", given, x, matrices),
        (end.mT.unsqueeze(-1) * matrices).sum(2),
        made(of)[:, :, -1],
    )
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    gradients, others = (
        torch.autograd.grad(read.square().sum() + ((left + end) * upstream).sum(), (*of, x))
        for read, left, end in (found, expected)
    )
    torch.testing.assert_close(gradients, others, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_near_it_where_directions_are_few_and_weak(shape: str) -> None:
    """Six gradients, each a fifth of the one before: down to 0.0003 of the length."""
    into, out = SHAPES[shape]
    of = momenta(into, out, torch.float32)
    weak = 0.2 ** torch.arange(6.0).unsqueeze(1)
    of = of._replace(before=0 * of.before, slopes=weak * of.slopes, kept=0 * of.kept)
    expected = orthogonalised(made(Momenta(*(x.double() for x in of))))
    given = torch.ones(2, 3, 1, 4)
    found = all_learned(orthogonal(of, 5), given).double()
    torch.testing.assert_close(found, expected.sum(2), atol=5e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_stays_nothing_with_finite_gradients(shape: str) -> None:
    of = Momenta(*((0 * x).detach().requires_grad_() for x in momenta(*SHAPES[shape], torch.float32)))
    left = all_learned(orthogonal(of, 5), torch.ones(2, 3, 1, 4))
    assert not left.any()
    assert all(x.isfinite().all() for x in torch.autograd.grad(left.sum(), of))


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_finite_differences(shape: str) -> None:
    of = Momenta(*(x[:1, :1].detach().requires_grad_() for x in momenta(*SHAPES[shape])))
    end = torch.randn(1, 1, 1, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *parts: all_learned(orthogonal(Momenta(*parts), 2), end), tuple(of)
    )
