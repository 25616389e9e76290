"""The algebra of chunks, against loops over steps and against autograd."""

from functools import partial

import pytest
import torch

from mnemos.ops.test_time import (
    MixedLayers,
    Mixing,
    back_through,
    continued,
    dot_product,
    gelu_slope,
    huber,
    made,
    moment,
    moments,
    no_mixing,
    one_more,
    power,
    squared_error,
    step_mixing,
    through,
)


def chunk(steps: int = 7, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(2, 3, *shape, generator=generator, dtype=dtype).requires_grad_()

    kept, momentum = torch.rand(2, 2, 3, steps, generator=generator, dtype=dtype)
    kept[0, 0, 2], momentum[0, 1, 3] = 0, 0  # all is forgotten, and momentum stops
    return {
        "kept": kept.requires_grad_(),
        "momentum": momentum.requires_grad_(),
        "weights": draw(4, 5),
        "momenta": draw(4, 5),
        "inputs": draw(steps, 4),
        "slopes": draw(steps, 5),
    }


def looped(parts: dict[str, torch.Tensor], real: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(W_t, S_t) after every step, by eqs. 10 and 13 of Titans."""
    weights, momenta = parts["weights"], parts["momenta"]
    after = [(weights, momenta)]
    for t in range(real.shape[2]):
        outer = parts["inputs"][:, :, t].unsqueeze(-1) * parts["slopes"][:, :, t].unsqueeze(-2)
        moved = parts["momentum"][:, :, t, None, None] * momenta + outer
        written = parts["kept"][:, :, t, None, None] * weights + moved
        here = real[:, :, t, None, None]
        weights, momenta = torch.where(here, written, weights), torch.where(here, moved, momenta)
        after.append((weights, momenta))
    return after


def test_momentum_and_decay_at_once_are_the_loop_over_steps() -> None:
    parts = chunk()
    real = (torch.arange(7) != 4).expand(2, 3, 7)
    mixing = step_mixing(parts["kept"], parts["momentum"], real)
    silent = parts["slopes"] * real.unsqueeze(-1)
    x, slope = torch.randn(2, 3, 1, 4, dtype=torch.float64), torch.randn(2, 3, 1, 5, dtype=torch.float64)
    for t, (weights, momenta) in enumerate(looped(parts, real)):
        now = moment(mixing, torch.tensor([t, t]))
        both = made([parts["weights"], parts["momenta"]], now, silent, parts["inputs"])
        torch.testing.assert_close(both, (weights, momenta))
        shares = [(now.weights, [parts["weights"]]), (now.momenta, [parts["momenta"]])]
        layers = MixedLayers(shares, now.steps, [parts["inputs"]], [silent])
        torch.testing.assert_close(through(layers, 0, x), x @ weights)
        torch.testing.assert_close(back_through(layers, 0, slope), slope @ weights.mT)


def test_one_step_more_and_steps_in_two_pieces_are_all_steps_at_once() -> None:
    parts = chunk()
    real = torch.ones(2, 3, 7, dtype=torch.bool)
    whole = step_mixing(parts["kept"], parts["momentum"], real)
    so_far = no_mixing(parts["kept"])
    for t in range(7):
        torch.testing.assert_close(so_far, moments(whole, t, t + 1, 7))
        kept, momentum = parts["kept"][..., t : t + 1], parts["momentum"][..., t : t + 1]
        so_far = one_more(so_far, kept, momentum, (torch.arange(7) == t).expand(2, 7))
    torch.testing.assert_close(so_far, moments(whole, 7, 8, 7))
    first, second = (
        step_mixing(parts["kept"][..., piece], parts["momentum"][..., piece], real[..., piece])
        for piece in (slice(3), slice(3, 7))
    )
    torch.testing.assert_close(continued(moments(first, 3, 4, 3), second), moments(whole, 3, 8, 7))


def test_gradients_of_made_weights_are_those_of_the_loop() -> None:
    parts = chunk()
    real = torch.ones(2, 3, 7, dtype=torch.bool)
    mixing = moment(step_mixing(parts["kept"], parts["momentum"], real), torch.tensor([7, 7]))
    both = made([parts["weights"], parts["momenta"]], mixing, parts["slopes"], parts["inputs"])
    probes = [torch.randn_like(parts["weights"]) for _ in range(2)]
    results = [
        torch.autograd.grad(
            sum((p * w).sum() for p, w in zip(probes, pair, strict=True)), list(parts.values())
        )
        for pair in (both, looped(parts, real)[-1])
    ]
    torch.testing.assert_close(*results)


def test_weights_without_momentum() -> None:
    parts = chunk()
    real = torch.ones(2, 3, 7, dtype=torch.bool)
    none = torch.zeros_like(parts["momentum"])
    mixing = moment(step_mixing(parts["kept"], none, real), torch.tensor([7, 7]))
    (weights,) = made([parts["weights"]], mixing, parts["slopes"], parts["inputs"])
    parts["momentum"] = none
    torch.testing.assert_close(weights, looped(parts, real)[-1][0])


def test_mixing_is_sound_where_products_vanish() -> None:
    tiny = torch.full((1, 1, 500), 1e-3, requires_grad=True)
    mixing = step_mixing(tiny, tiny, torch.ones(1, 1, 500, dtype=torch.bool))
    assert isinstance(mixing, Mixing)
    assert all(part.isfinite().all() for part in mixing)
    (gradient,) = torch.autograd.grad(sum(part.sum() for part in mixing), tiny)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("slope", "loss"),
    [
        (squared_error, lambda e, y, v: e.square().sum()),
        (dot_product, lambda e, y, v: -2 * (y * v).sum()),
        (
            partial(huber, threshold=0.7),
            lambda e, y, v: 2 * torch.nn.functional.huber_loss(y, v, reduction="sum", delta=0.7),
        ),
        (partial(power, degree=2.5), lambda e, y, v: e.abs().pow(2.5).sum()),
    ],
)
def test_slopes_are_those_of_the_losses(slope, loss) -> None:
    answers, values = torch.randn(2, 50, dtype=torch.float64)
    answers.requires_grad_()
    (expected,) = torch.autograd.grad(loss(answers - values, answers, values), answers)
    torch.testing.assert_close(slope(answers, values), expected)


def test_the_slope_of_gelu_is_aten_s_with_all_its_gradients() -> None:
    slope, x = torch.randn(2, 1, 1, 2, 3, dtype=torch.float64).unbind(0)
    given = slope.requires_grad_(), x.requires_grad_()
    torch.testing.assert_close(gelu_slope(*given), torch.ops.aten.gelu_backward(*given))
    assert torch.autograd.gradcheck(gelu_slope, given)
    assert torch.autograd.gradgradcheck(gelu_slope, given)


def test_gradients_of_gradients_go_back_through_a_layer() -> None:
    weights, slope = (
        torch.randn(1, 2, 3, 2, dtype=torch.float64),
        torch.randn(1, 2, 2, 2, dtype=torch.float64),
    )

    def back(weights: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        return back_through(MixedLayers([(None, [weights])], None, (), ()), 0, slope)

    given = weights.requires_grad_(), slope.requires_grad_()
    torch.testing.assert_close(back(*given), slope @ weights.mT)
    assert torch.autograd.gradgradcheck(back, given)
