"""Location addressing at its limits."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mnemos.ops.location import interpolate, sharpen, shift


def weights(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).softmax(-1)


def one_hot(place: int, size: int) -> Tensor:
    return functional.one_hot(torch.tensor(place), size).float()


def test_the_gate_takes_what_was_found_or_keeps_what_was() -> None:
    content, previous = weights(2, 3, 5), weights(2, 3, 5, seed=1)
    assert torch.equal(interpolate(content, previous, torch.ones(2, 3)), content)
    assert torch.equal(interpolate(content, previous, torch.zeros(2, 3)), previous)
    quarter = interpolate(content, previous, torch.full((2, 3), 0.25))
    torch.testing.assert_close(quarter, 0.25 * content + 0.75 * previous)


@pytest.mark.parametrize("slots", [1, 2, 7])
@pytest.mark.parametrize("places", [-2, -1, 0, 1, 2])
def test_a_shift_by_so_many_places_is_a_roll(slots: int, places: int) -> None:
    given = weights(2, 3, slots)
    shifts = one_hot(places + 2, 5).expand(2, 3, 5)
    torch.testing.assert_close(shift(given, shifts), given.roll(places, -1))


def test_a_shift_is_the_circular_convolution() -> None:
    given, shifts = weights(2, 3, 6), weights(2, 3, 3, seed=1)
    expected = torch.zeros(2, 3, 6)
    for i in range(6):
        for j in range(6):
            for places in (-1, 0, 1):
                if (i - j - places) % 6 == 0:
                    expected[..., i] += given[..., j] * shifts[..., places + 1]
    torch.testing.assert_close(shift(given, shifts), expected)
    torch.testing.assert_close(shift(given, shifts).sum(-1), torch.ones(2, 3))


def test_sharpening_goes_from_nothing_to_one_hot() -> None:
    given = weights(2, 3, 5)
    torch.testing.assert_close(sharpen(given, torch.ones(2, 3)), given)
    squared = given.square() / given.square().sum(-1, keepdim=True)
    torch.testing.assert_close(sharpen(given, torch.full((2, 3), 2.0)), squared)
    expected = functional.one_hot(given.argmax(-1), 5).float()
    torch.testing.assert_close(sharpen(given, torch.full((2, 3), 1e6)), expected)


@pytest.mark.parametrize("exponent", [1.0, 3.0, 100.0, 1e6])
@pytest.mark.parametrize(
    "given",
    [one_hot(2, 5), torch.full((5,), 0.2), torch.tensor([1.0, 1e-38, 1e-45, 0, 0]), torch.ones(1)],
    ids=["one hot", "even", "tiny", "one slot"],
)
def test_sharpening_of_any_weights_by_any_exponent_is_finite(exponent: float, given: Tensor) -> None:
    given = given.expand(1, -1).clone().requires_grad_()
    exponents = torch.full((1,), exponent, requires_grad=True)
    sharp = sharpen(given, exponents)
    torch.testing.assert_close(sharp.sum(-1), torch.ones(1))
    sharp.square().sum().backward()
    for leaf in (given, exponents):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_weights_that_are_too_small_for_their_powers_keep_their_order() -> None:
    given = torch.tensor([[0.001, 0.003, 0.002]])
    torch.testing.assert_close(sharpen(given, torch.tensor([40.0])), torch.tensor([[0.0, 1.0, 0.0]]))
