"""The best of n² keys by halves, held to the sums of all pairs."""

import pytest
import torch
from torch import Tensor

from mnemos.ops.product_key import product_top_k, product_top_k_naive


def halves(*shape: int, second: int = 0, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (shape, (*shape[:-1], second or shape[-1]))
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize(
    ("first", "second", "k"),
    [(1, 1, 1), (7, 7, 1), (7, 7, 10), (7, 3, 21), (3, 7, 20), (64, 64, 32), (1, 40, 5), (256, 256, 3)],
)
def test_it_finds_what_looking_at_all_pairs_finds(first: int, second: int, k: int) -> None:
    parts = halves(2, 3, first, second=second, dtype=torch.float64)  # in which no two sums are equal
    scores, slots = product_top_k(*parts, k)
    expected, expected_slots = product_top_k_naive(*parts, k)
    assert torch.equal(scores, expected)
    assert torch.equal(slots, expected_slots)
    probe = torch.randn(scores.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for ours, naive in zip(
        torch.autograd.grad(scores, parts, probe), torch.autograd.grad(expected, parts, probe), strict=True
    ):
        torch.testing.assert_close(ours, naive)


def test_equal_scores_give_equal_sums_and_distinct_slots() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randint(3, (50, 12), generator=generator).float() for _ in range(2))
    scores, slots = product_top_k(first, second, 30)
    assert torch.equal(scores, product_top_k_naive(first, second, 30)[0])
    assert torch.equal(scores, first.gather(1, slots // 12) + second.gather(1, slots % 12))
    assert all(len(row.unique()) == 30 for row in slots)


@pytest.mark.parametrize("length", [512, 1024])
def test_long_rows_are_ranked_by_blocks(length: int) -> None:
    first, second = halves(40, length, seed=3)
    with torch.no_grad():
        first[0] = 0.5  # one value throughout
        first[1] = torch.arange(length)  # the best side by side
    scores, slots = product_top_k(first, second, 32)
    assert torch.equal(scores, first.gather(1, slots // length) + second.gather(1, slots % length))
    wanted = torch.stack([product_top_k_naive(a, b, 32)[0] for a, b in zip(first, second, strict=True)])
    assert torch.equal(scores, wanted)


def test_one_key_is_the_sum_of_the_greatest() -> None:
    first, second = halves(9, 20, seed=4)
    scores, slots = product_top_k(first, second, 1)
    torch.testing.assert_close(scores.squeeze(1), first.amax(1) + second.amax(1))
    assert torch.equal(slots.squeeze(1), first.argmax(1) * 20 + second.argmax(1))


def test_no_rows_are_no_answers() -> None:
    scores, slots = product_top_k(torch.zeros(0, 4), torch.zeros(0, 4), 3)
    assert scores.shape == slots.shape == (0, 3)


def test_the_scores_pass_gradcheck() -> None:
    parts = halves(2, 5, seed=5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: product_top_k(a, b, 4)[0], parts)


@pytest.mark.parametrize("k", [0, 13])
def test_there_must_be_enough_pairs(k: int) -> None:
    for function in (product_top_k, product_top_k_naive):
        with pytest.raises(ValueError, match=rf"k must be from 1 to 4 \* 3, the number of keys, not {k}"):
            function(torch.zeros(4), torch.zeros(3), k)
