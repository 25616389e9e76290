"""Content addressing at its limits."""

import torch

from mnemos.ops.content import (
    content_weights,
    content_weights_naive,
    cosine_similarity,
    masked_content_weights,
)


def test_strength_goes_from_even_to_one_hot() -> None:
    generator = torch.Generator().manual_seed(0)
    memory, keys = torch.randn(2, 5, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    even = content_weights(keys, torch.zeros(2, 3), memory)
    torch.testing.assert_close(even, torch.full((2, 3, 5), 0.2))
    sharp = content_weights(keys, torch.full((2, 3), 1e6), memory)
    nearest = torch.nn.functional.cosine_similarity(keys.unsqueeze(2), memory.unsqueeze(1), dim=-1).argmax(-1)
    torch.testing.assert_close(sharp, torch.nn.functional.one_hot(nearest, 5).float())


def test_length_does_not_count() -> None:
    generator = torch.Generator().manual_seed(1)
    memory, keys = torch.randn(5, 4, generator=generator), torch.randn(3, 4, generator=generator)
    expected = torch.nn.functional.cosine_similarity(keys.unsqueeze(1), memory, dim=-1)
    for scale in (0.01, 1.0, 100.0):
        torch.testing.assert_close(cosine_similarity(scale * keys, memory / scale), expected)


def test_zeros_are_like_nothing_and_have_finite_gradients() -> None:
    memory, keys = torch.zeros(2, 5, 4, requires_grad=True), torch.zeros(2, 3, 4, requires_grad=True)
    weights = content_weights(keys, torch.ones(2, 3), memory)
    torch.testing.assert_close(weights, torch.full((2, 3, 5), 0.2))
    weights.square().sum().backward()
    for given in (memory, keys):
        assert given.grad is not None
        assert given.grad.isfinite().all()


def test_the_hand_written_backward_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (scale * torch.randn(*shape, dtype=torch.float64, generator=generator)).requires_grad_()

    for scale in (1.0, 1e-4):  # below 1e-3 a vector has no unit length
        given = random(2, 3, 4, scale=scale), random(2, 3), random(2, 5, 4, scale=scale)
        probe = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
        ours, naive = content_weights(*given), content_weights_naive(*given)
        torch.testing.assert_close(ours, naive)
        found, expected = (torch.autograd.grad(weights, given, probe) for weights in (ours, naive))
        torch.testing.assert_close(found, expected)


def test_a_mask_of_ones_compares_all_and_a_masked_part_does_not_count() -> None:
    generator = torch.Generator().manual_seed(3)
    memory, keys = torch.randn(2, 5, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    strengths = torch.rand(2, 3, generator=generator)
    everything = masked_content_weights(keys, strengths, torch.ones_like(keys), memory)
    torch.testing.assert_close(everything, content_weights(keys, strengths, memory))
    half = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand_as(keys)
    part = masked_content_weights(keys, strengths, half, memory)
    torch.testing.assert_close(part, content_weights(keys[..., :2], strengths, memory[..., :2]))
    nothing = masked_content_weights(keys, strengths, torch.zeros_like(keys), memory)
    torch.testing.assert_close(nothing, torch.full((2, 3, 5), 0.2))
