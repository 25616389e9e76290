"""Packing and distances, against counting bit by bit."""

import pytest
import torch

from mnemos.ops.hamming import hamming_distances, hamming_distances_naive, pack, unpack, within_radius

# locations, bits, queries: one of each; full and partial words; blocks of both kernels and a bit more.
SIZES = [(1, 1, 1), (5, 64, 17), (3, 65, 40), (5000, 130, 33), (33000, 200, 3), (2049, 100, 600), (7, 9, 0)]


def random_bits(count: int, bits: int) -> torch.Tensor:
    return torch.rand(count, bits, generator=torch.Generator().manual_seed(count + bits)) < 0.5


@pytest.mark.parametrize(("locations", "bits", "queries"), SIZES)
def test_distances_are_counts_of_bits_that_differ(locations: int, bits: int, queries: int) -> None:
    stored, asked = random_bits(locations, bits), random_bits(queries, bits)
    expected = (stored[:, None] != asked).sum(2).mT.int()
    addresses, packed = pack(stored).mT.contiguous(), pack(asked)
    torch.testing.assert_close(hamming_distances(packed, addresses), expected)
    torch.testing.assert_close(hamming_distances_naive(packed, addresses), expected)
    for radius in (-1, 0, bits // 2 - 3, bits):
        pairs = within_radius(packed, addresses, radius)
        torch.testing.assert_close(pairs, (expected <= radius).nonzero())


@pytest.mark.parametrize("bits", [1, 63, 64, 65, 1000])
def test_unpacking_undoes_packing(bits: int) -> None:
    given = random_bits(6, bits).unflatten(0, (2, 3))
    words = pack(given)
    assert words.shape == (2, 3, -(-bits // 64))
    assert torch.equal(unpack(words)[..., :bits], given)
    assert not unpack(words)[..., bits:].any()


def test_the_first_bit_is_the_lowest() -> None:
    assert pack(torch.arange(64) == 0).tolist() == [1]
    assert pack(torch.arange(64) == 63).tolist() == [-(2**63)]
    assert pack(torch.ones(64, dtype=torch.bool)).tolist() == [-1]
