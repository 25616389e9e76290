"""Polynomial features, whose products are polynomials of products."""

import math

import pytest
import torch

from mnemos.memories.polynomial_features import PolynomialFeatures


@pytest.mark.parametrize(("size", "degree"), [(3, 1), (5, 2), (3, 4), (1, 3)])
def test_features_multiply_as_the_series_of_exp(size: int, degree: int) -> None:
    features = PolynomialFeatures(size, degree).double()
    queries, keys = torch.randn(2, 6, size, dtype=torch.float64)
    products = queries @ keys.T
    expected = sum(products**i / math.factorial(i) for i in range(degree + 1))
    found = features(queries) @ features(keys).T
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert features(keys).shape == (6, math.comb(size + degree, degree)) == (6, features.width)


def test_a_coefficient_of_its_own_for_each_degree() -> None:
    features = PolynomialFeatures(3, 2).double()
    with torch.no_grad():
        features.roots.copy_(torch.tensor([0.0, 2.0, 3.0]))
    queries, keys = torch.randn(2, 5, 3, dtype=torch.float64)
    products = queries @ keys.T
    torch.testing.assert_close(features(queries) @ features(keys).T, 4 * products + 9 * products**2)


def test_of_degree_one_they_are_the_key_behind_a_constant() -> None:
    keys = torch.randn(4, 3)
    torch.testing.assert_close(PolynomialFeatures(3, 1)(keys), torch.cat([torch.ones(4, 1), keys], dim=1))
