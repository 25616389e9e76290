"""Rotary positions."""

import torch

from mnemos.ops.rotary import rotate


def test_rotated_products_depend_on_distance_alone():
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 1, 1, 1, 8).double()

    def product(i, j):
        left, right = (torch.tensor([[position]]) for position in (i, j))
        return (rotate(queries, left, 10_000.0) * rotate(keys, right, 10_000.0)).sum()

    torch.testing.assert_close(product(7, 3), product(104, 100), rtol=0, atol=1e-5)
    assert abs(product(7, 3) - product(7, 4)) > 1e-3
