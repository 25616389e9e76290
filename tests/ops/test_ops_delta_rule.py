"""The chunked delta rule is the loop, and the loop is what the paper says."""

import pytest
import torch
from torch import Tensor

from mnemos.ops.delta_rule import delta_rule_chunked, delta_rule_loop, unit


def problem(
    batch: int, time: int, heads: int, keys: int, width: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Queries, keys, values, strengths and weights that carry gradients."""
    made = torch.Generator().manual_seed(time)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made, dtype=dtype)

    parts = [
        normal(batch, time, heads, keys),
        unit(normal(batch, time, heads, keys)),
        normal(batch, time, heads, width),
        normal(batch, time, heads).sigmoid(),
        normal(batch, heads, width, keys),
    ]
    return [part.requires_grad_() for part in parts]


def gradients(outputs: Tensor, weights: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    loss = outputs.sin().sum() + weights.sin().sum()
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize("resets", [None, (0,), (3,), (6, 7), (1, 7, 8, 9, 16)])
@pytest.mark.parametrize(("time", "chunk_size"), [(1, 4), (3, 4), (17, 1), (17, 8), (24, 8), (17, 64)])
def test_chunked_is_the_loop(
    time: int, chunk_size: int, resets: tuple[int, ...] | None, read_first: bool
) -> None:
    inputs = problem(2, time, 3, 5, 7)
    reset = None
    if resets is not None:
        reset = torch.zeros(2, time, dtype=torch.bool)
        reset[0, [t for t in resets if t < time]] = True  # the rows differ
    looped = delta_rule_loop(*inputs, reset, read_first=read_first)
    chunked = delta_rule_chunked(*inputs, reset, chunk_size=chunk_size, read_first=read_first)
    torch.testing.assert_close(chunked, looped, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(*chunked, inputs), gradients(*looped, inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", [delta_rule_loop, delta_rule_chunked])
def test_a_reset_leaves_nothing_of_what_came_before(form) -> None:
    inputs = problem(1, 11, 2, 4, 3)
    reset = torch.zeros(1, 11, dtype=torch.bool)
    reset[0, 6] = True
    outputs, weights = form(*inputs, reset)
    alone = form(*(x[:, 6:] for x in inputs[:4]), torch.zeros_like(inputs[4]))
    torch.testing.assert_close((outputs[:, 6:], weights), alone)
    before = torch.autograd.grad(outputs[:, 6:].sum() + weights.sum(), inputs)
    assert all(gradient[:, :6].eq(0).all() for gradient in before[:4])
    assert before[4].eq(0).all()


@pytest.mark.parametrize("form", [delta_rule_loop, delta_rule_chunked])
def test_full_strength_overwrites_and_none_changes_nothing(form) -> None:
    queries, keys, values, strengths, weights = (x.detach() for x in problem(2, 6, 2, 8, 3))
    keys[:, 3] = keys[:, 1]
    outputs, after = form(keys, keys, values, torch.ones_like(strengths), weights)
    torch.testing.assert_close(outputs, values)  # each key answers what was just written under it
    unchanged = form(queries, keys, values, torch.zeros_like(strengths), weights)
    assert torch.equal(unchanged[1], weights)
    # Orthogonal keys do not disturb one another: the repeated key answers its last value.
    keys = torch.eye(8)[[0, 1, 2, 1, 3, 4]].expand(2, 2, 6, 8).transpose(1, 2)
    _, after = form(keys, keys, values, torch.ones_like(strengths), weights)
    answers = torch.einsum("bhwk,bthk->bthw", after, keys)
    torch.testing.assert_close(answers[:, [0, 2, 3, 4, 5]], values[:, [0, 2, 3, 4, 5]])
    torch.testing.assert_close(answers[:, 1], values[:, 3])


@pytest.mark.parametrize("form", [delta_rule_loop, delta_rule_chunked])
def test_nothing_in_nothing_out(form) -> None:
    inputs = problem(2, 0, 2, 4, 3)
    outputs, weights = form(*inputs, torch.zeros(2, 0, dtype=torch.bool))
    assert outputs.shape == (2, 0, 2, 3)
    assert torch.equal(weights, inputs[4])


def test_gradients_are_the_slopes() -> None:
    inputs = problem(1, 5, 2, 3, 2, dtype=torch.float64)
    reset = torch.tensor([[False, False, False, True, False]])
    assert torch.autograd.gradcheck(
        lambda *x: delta_rule_chunked(*x, reset, chunk_size=2, read_first=True), inputs
    )


def test_unit_is_safe_at_zero() -> None:
    x = torch.stack([torch.zeros(4), torch.full((4,), 1e4), torch.tensor([3.0, 0.0, 4.0, 0.0])])
    x.requires_grad_()
    lengths = unit(x).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([0.0, 1.0, 1.0]))
    unit(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() <= 1e3
