"""Feature maps: what their papers say of them."""

import torch

from mnemos.ops.features import deterministic_parameter_free, elu_plus_one, sum_to_one


def test_elu_plus_one_is_that() -> None:
    x = torch.linspace(-3, 3, 13, requires_grad=True)
    torch.testing.assert_close(elu_plus_one(x), torch.nn.functional.elu(x) + 1)
    assert elu_plus_one(x).min() > 0


def test_dpfp_by_the_papers_index() -> None:
    x = torch.randn(6)
    parts = torch.cat([x.relu(), (-x).relu()])
    features = deterministic_parameter_free(x, 3)
    assert features.shape == (36,)
    for shift in (1, 2, 3):
        for channel in range(12):
            expected = parts[channel] * parts[(channel - shift) % 12]
            torch.testing.assert_close(features[12 * (shift - 1) + channel], expected)


def test_dpfp_gives_orthogonal_features_to_keys_in_other_orthants() -> None:
    generator = torch.Generator().manual_seed(0)
    signs = torch.tensor([[1, 1, 1, 1.0], [-1, -1, -1, -1], [1, -1, 1, -1]])
    keys = signs * torch.rand(3, 4, generator=generator).add(0.1)
    features = deterministic_parameter_free(keys, 1)
    products = features @ features.T
    assert products.diagonal().min() > 0
    assert products.fill_diagonal_(0).eq(0).all()


def test_sums_are_one_and_zeros_stay() -> None:
    x = torch.rand(5, 7)
    x[2] = 0
    sums = sum_to_one(x).sum(-1)
    torch.testing.assert_close(sums, torch.tensor([1.0, 1, 0, 1, 1]))
