"""The chunked gated delta rule is the loop, and the loop is what the papers say."""

import pytest
import torch
from torch import Tensor

from mnemos.ops.delta_rule import delta_rule_chunked, delta_rule_loop, unit

FORMS = [delta_rule_loop, delta_rule_chunked]


def problem(
    batch: int, time: int, heads: int, keys: int, width: int, decay: str | None = None, dtype=torch.float32
) -> dict[str, Tensor | None]:
    """What a form takes by name, carrying gradients; the decay none, or one for each "head" or "channel"."""
    made = torch.Generator().manual_seed(time)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made, dtype=dtype)

    key = unit(normal(batch, time, heads, keys))
    strength = normal(batch, time, heads, 1).sigmoid()
    channels = {None: 0, "head": 1, "channel": keys}[decay]
    parts = {
        "queries": normal(batch, time, heads, keys),
        "keys": key,
        "written": strength * normal(batch, time, heads, width),
        "erased": strength * key,
        "weights": normal(batch, heads, width, keys),
        "log_decay": -normal(batch, time, heads, channels).exp() if channels else None,
    }
    return {name: None if part is None else part.requires_grad_() for name, part in parts.items()}


def gradients(outputs: Tensor, weights: Tensor, parts: dict[str, Tensor | None]) -> tuple[Tensor, ...]:
    loss = outputs.sin().sum() + weights.sin().sum()
    return torch.autograd.grad(loss, [part for part in parts.values() if part is not None])


@pytest.mark.parametrize("decay", [None, "head", "channel"])
@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize("resets", [None, (0,), (3,), (1, 7, 8, 9, 16)])
@pytest.mark.parametrize(("time", "chunk_size"), [(1, 4), (3, 4), (17, 1), (17, 8), (24, 8), (17, 64)])
def test_chunked_is_the_loop(time, chunk_size, resets, read_first, decay) -> None:
    parts = problem(2, time, 3, 5, 7, decay)
    reset = None
    if resets is not None:
        reset = torch.zeros(2, time, dtype=torch.bool)
        reset[0, [t for t in resets if t < time]] = True  # the rows differ
    looped = delta_rule_loop(**parts, reset=reset, read_first=read_first)
    chunked = delta_rule_chunked(**parts, reset=reset, chunk_size=chunk_size, read_first=read_first)
    torch.testing.assert_close(chunked, looped, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(*chunked, parts), gradients(*looped, parts), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("decay", ["head", "channel"])
@pytest.mark.parametrize("least", [-5.0, -19.0, -1e4])
def test_no_decay_is_too_strong(decay: str, least: float) -> None:
    parts = problem(1, 41, 2, 6, 3, decay)
    log_decay = parts["log_decay"].detach().clone()
    log_decay[:, 1::3] = least
    log_decay[:, ::7] = 0
    parts["log_decay"] = log_decay.requires_grad_()
    looped, chunked = delta_rule_loop(**parts), delta_rule_chunked(**parts, chunk_size=16)
    torch.testing.assert_close(chunked, looped, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(*chunked, parts), gradients(*looped, parts), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_channels_alike_are_a_head(form) -> None:
    parts = problem(2, 11, 2, 5, 3, "head")
    by_channel = parts | {"log_decay": parts["log_decay"].expand(-1, -1, -1, 5)}
    torch.testing.assert_close(form(**by_channel), form(**parts))


@pytest.mark.parametrize("form", FORMS)
def test_no_decay_is_the_plain_rule(form) -> None:
    parts = problem(2, 11, 2, 5, 3)
    plain = form(**parts)
    torch.testing.assert_close(form(**parts | {"log_decay": torch.zeros(2, 11, 2, 1)}), plain)
    torch.testing.assert_close(form(**parts | {"log_decay": torch.zeros(2, 11, 2, 5)}), plain)


@pytest.mark.parametrize("form", FORMS)
def test_without_erasing_it_is_linear_attention(form) -> None:
    parts = problem(2, 11, 2, 5, 3) | {"erased": None}
    outputs, weights = form(**parts)
    scores = torch.einsum("bthk,bshk->bhts", parts["queries"], parts["keys"]).tril()
    attended = torch.einsum("bhts,bshw->bthw", scores, parts["written"])
    before = torch.einsum("bhwk,bthk->bthw", parts["weights"], parts["queries"])
    torch.testing.assert_close(outputs, before + attended)
    written = torch.einsum("bshw,bshk->bhwk", parts["written"], parts["keys"])
    torch.testing.assert_close(weights, parts["weights"] + written)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 4])
def test_to_keep_nothing_is_a_reset(form, channels: int) -> None:
    parts = problem(1, 9, 2, 4, 3)
    log_decay = torch.zeros(1, 9, 2, channels)
    log_decay[:, 5] = -1e3
    reset = torch.zeros(1, 9, dtype=torch.bool)
    reset[:, 5] = True
    torch.testing.assert_close(form(**parts | {"log_decay": log_decay}), form(**parts, reset=reset))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("decay", [None, "head", "channel"])
def test_a_reset_leaves_nothing_of_what_came_before(form, decay) -> None:
    parts = problem(1, 11, 2, 4, 3, decay)
    reset = torch.zeros(1, 11, dtype=torch.bool)
    reset[0, 6] = True
    outputs, weights = form(**parts, reset=reset)
    later = {name: part if part is None else part[:, 6:] for name, part in parts.items()}
    alone = form(**later | {"weights": torch.zeros_like(parts["weights"])})
    torch.testing.assert_close((outputs[:, 6:], weights), alone)
    given = {name: part for name, part in parts.items() if part is not None}
    slopes = torch.autograd.grad(outputs[:, 6:].sum() + weights.sum(), list(given.values()))
    before = dict(zip(given, slopes, strict=True))
    assert before.pop("weights").eq(0).all()
    if decay is not None:  # sums of decays begin with the chunk: what cancels is rounded
        assert before.pop("log_decay")[:, :6].abs().max() < 1e-6
    assert all(gradient[:, :6].eq(0).all() for gradient in before.values())


@pytest.mark.parametrize("form", FORMS)
def test_full_strength_overwrites_and_none_changes_nothing(form) -> None:
    parts = problem(2, 6, 2, 8, 3)
    keys = parts["keys"].detach().clone()
    keys[:, 3] = keys[:, 1]
    values, weights = torch.randn(2, 6, 2, 3), parts["weights"].detach()
    outputs, _ = form(keys, keys, values, keys, weights)
    torch.testing.assert_close(outputs, values)  # each key answers what was just written under it
    unchanged = form(keys, keys, 0 * values, 0 * keys, weights)
    assert torch.equal(unchanged[1], weights)
    # Orthogonal keys do not disturb one another: the repeated key answers its last value.
    keys = torch.eye(8)[[0, 1, 2, 1, 3, 4]].expand(2, 2, 6, 8).transpose(1, 2)
    _, after = form(keys, keys, values, keys, weights)
    answers = torch.einsum("bhwk,bthk->bthw", after, keys)
    torch.testing.assert_close(answers[:, [0, 2, 3, 4, 5]], values[:, [0, 2, 3, 4, 5]])
    torch.testing.assert_close(answers[:, 1], values[:, 3])


@pytest.mark.parametrize("form", FORMS)
def test_only_erased_channels_are_read_before_they_are_replaced(form) -> None:
    """One step of the second gated rule, written out: S - (S (b ⊙ k)) ⊗ k + w ⊗ k."""
    parts = {name: part.detach() for name, part in problem(1, 1, 1, 4, 3).items() if part is not None}
    gate = torch.tensor([1.0, 0.0, 0.5, 1.0])
    _, after = form(**parts | {"erased": gate * parts["keys"]})
    matrix, key, written = parts["weights"][0, 0], parts["keys"][0, 0, 0], parts["written"][0, 0, 0]
    expected = matrix - torch.outer(matrix @ (gate * key), key) + torch.outer(written, key)
    torch.testing.assert_close(after[0, 0], expected)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_in_nothing_out(form) -> None:
    parts = problem(2, 0, 2, 4, 3, "head")
    outputs, weights = form(**parts, reset=torch.zeros(2, 0, dtype=torch.bool))
    assert outputs.shape == (2, 0, 2, 3)
    assert torch.equal(weights, parts["weights"])


@pytest.mark.parametrize("decay", [None, "head", "channel"])
def test_gradients_are_the_slopes(decay) -> None:
    parts = problem(1, 5, 2, 3, 2, decay, dtype=torch.float64)
    names = [name for name, part in parts.items() if part is not None]
    reset = torch.tensor([[False, False, False, True, False]])

    def form(*given: Tensor) -> tuple[Tensor, Tensor]:
        return delta_rule_chunked(
            **parts | dict(zip(names, given, strict=True)), reset=reset, chunk_size=2, read_first=True
        )

    assert torch.autograd.gradcheck(form, [parts[name] for name in names])


def test_unit_is_safe_at_zero() -> None:
    x = torch.stack([torch.zeros(4), torch.full((4,), 1e4), torch.tensor([3.0, 0.0, 4.0, 0.0])])
    x.requires_grad_()
    lengths = unit(x).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([0.0, 1.0, 1.0]))
    unit(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() <= 1e3
