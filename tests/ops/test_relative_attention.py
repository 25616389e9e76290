"""The shifted, blocked form of relative attention is the naive one, and the naive one what the paper says."""

import pytest
import torch
from torch import Tensor

from mnemos.ops.relative_attention import relative_attention, relative_attention_naive, sinusoids


def problem(
    time: int, window: int, documents: int = 1, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Tensor]:
    """What carries a gradient, and the documents: some slots without a step first, two rows that differ."""
    made = torch.Generator().manual_seed(time * 100 + window)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made, dtype=dtype, requires_grad=True)

    seen, heads, width = window + time, 2, 5
    parts = [normal(2, time, heads, width), normal(2, seen, heads, width), normal(2, seen, heads, 3)]
    parts += [normal(window + 1, heads, width), normal(heads, width), normal(heads, width)]
    document = torch.arange(seen).mul(documents).div(seen, rounding_mode="floor").repeat(2, 1)
    document[1, : seen // 3] = -1
    return parts, document


@pytest.mark.parametrize("documents", [1, 3])
@pytest.mark.parametrize(("time", "window"), [(1, 1), (1, 6), (5, 9), (9, 5), (64, 3), (101, 40)])
def test_shifted_blocks_are_the_naive_form(time: int, window: int, documents: int) -> None:
    parts, document = problem(time, window, documents)
    slow, fast = (form(*parts, document) for form in (relative_attention_naive, relative_attention))
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    slopes = [torch.autograd.grad(outputs.sin().sum(), parts) for outputs in (fast, slow)]
    torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-4)


def test_the_naive_form_is_the_equation() -> None:
    (queries, keys, values, distances, u, v), document = problem(3, 2)
    outputs = relative_attention_naive(queries, keys, values, distances, u, v, document)
    for head in range(2):  # the last step of row 0, which sees steps 2, 3 and 4
        scores = torch.stack(
            [
                (queries[0, 2, head] + u[head]) @ keys[0, j, head]
                + (queries[0, 2, head] + v[head]) @ distances[4 - j, head]
                for j in (2, 3, 4)
            ]
        )
        expected = (scores / 5**0.5).softmax(0) @ values[0, 2:, head]
        torch.testing.assert_close(outputs[0, 2, head], expected)


@pytest.mark.parametrize("form", [relative_attention_naive, relative_attention])
def test_where_there_is_nothing_to_see_the_answer_is_zero(form) -> None:
    parts, document = problem(4, 3)
    document[:] = -1
    outputs = form(*parts, document)
    assert outputs.eq(0).all()
    slopes = torch.autograd.grad(outputs.sum(), parts, allow_unused=True)
    assert all(slope is None or slope.eq(0).all() for slope in slopes)


def test_gradients_are_the_slopes() -> None:
    parts, document = problem(4, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: relative_attention(*x, document), parts)


def test_keys_must_cover_the_window() -> None:
    parts, document = problem(4, 3)
    parts[1], parts[2] = parts[1][:, 1:], parts[2][:, 1:]
    with pytest.raises(ValueError, match=r"keys must be those of 3 \+ 4 steps, not 6"):
        relative_attention(*parts, document[:, 1:])


def test_sinusoids() -> None:
    table = sinusoids(50, 7)
    assert table.shape == (50, 7)
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1, 0, 1, 0, 1, 0]))
    torch.testing.assert_close(table[3, 2], torch.tensor(3 / 10_000 ** (2 / 7)).sin())
