"""Content addressing at its limits."""

import torch

from mnemos.ops.content import content_weights, cosine_similarity


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
