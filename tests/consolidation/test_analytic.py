import math

import pytest
import torch
from torch import Tensor, nn

from mnemos.consolidation import AnalyticReadout, RandomFeatures


def data(rows: int = 60, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, 6, dtype=torch.float64, generator=generator)
    return inputs, torch.randint(classes, (rows,), generator=generator)


def features(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, inputs**2, torch.ones_like(inputs[:, :1])], dim=1)


def joint(inputs: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """The least squares of all at once, by a QR factor of the features, which forms no XᵀX."""
    found = features(inputs)
    width = found.shape[1]
    above = torch.cat([found, math.sqrt(ridge) * torch.eye(width, dtype=torch.float64)])
    below = torch.cat([wanted, wanted.new_zeros(width, wanted.shape[1])])
    return torch.linalg.lstsq(above, below).solution


@pytest.mark.parametrize("ridge", [1e-6, 1.0, 1e3])
def test_any_order_and_any_split_is_the_joint_solution(ridge: float) -> None:
    inputs, targets = data()
    wanted = nn.functional.one_hot(targets, 4).double()
    expected = joint(inputs, wanted, ridge)
    by_class, lots = targets.argsort(), torch.randperm(60)
    for order, sizes in ((by_class, [15] * 4), (lots, [1] * 60), (lots.flip(0), [0, 7, 52, 0, 1])):
        readout = AnalyticReadout(features, width=13, outputs=4, ridge=ridge)
        for part in order.split(sizes):
            readout.observe(inputs[part], targets[part])
            readout(inputs[:1])  # to ask meanwhile changes nothing
        assert (readout.weights - expected).abs().max() < 1e-8
        torch.testing.assert_close(readout(inputs), features(inputs) @ expected, rtol=0, atol=1e-8)


def test_targets_of_any_kind() -> None:
    """Floats, of which one-hot vectors are some."""
    inputs, targets = data()
    values = torch.randn(60, 3, dtype=torch.float64)
    readout = AnalyticReadout(features, width=13, outputs=3, ridge=0.1)
    readout.observe(inputs[:20], values[:20])
    readout.observe(inputs[20:], values[20:])
    assert (readout.weights - joint(inputs, values, 0.1)).abs().max() < 1e-8
    classes, vectors = (AnalyticReadout(features, width=13, outputs=4) for _ in range(2))
    classes.observe(inputs, targets)
    vectors.observe(inputs, nn.functional.one_hot(targets, 4).float())
    assert torch.equal(classes.weights, vectors.weights)


def test_classes_that_come_later() -> None:
    inputs, targets = data()
    growing = AnalyticReadout(features, width=13, outputs=2)
    early = targets < 2
    growing.observe(inputs[early], targets[early])
    assert growing(inputs).shape == (60, 2)
    growing.grow(4)
    assert (growing(inputs)[:, 2:] == 0).all()
    growing.observe(inputs[~early], targets[~early])
    whole = AnalyticReadout(features, width=13, outputs=4)
    whole.observe(inputs, targets)
    assert (growing.weights - whole.weights).abs().max() < 1e-12


def test_the_sums_lose_less_than_woodburys_identity() -> None:
    """With features that are nearly dependent and a small ridge, after many updates."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(400, 6, dtype=torch.float64, generator=generator)
    inputs[:, 5] = inputs[:, 4] + 1e-3 * inputs[:, 5]
    wanted = inputs @ torch.randn(6, 2, dtype=torch.float64, generator=generator)
    ridge = 1e-9
    readout = AnalyticReadout(features, width=13, outputs=2, ridge=ridge)
    inverse = torch.eye(13, dtype=torch.float64) / ridge
    weights = torch.zeros(13, 2, dtype=torch.float64)
    for rows, values in zip(inputs.split(4), wanted.split(4), strict=True):
        readout.observe(rows, values)
        found = features(rows)  # as ACIL does
        gain = inverse @ found.mT @ torch.linalg.inv(torch.eye(4).double() + found @ inverse @ found.mT)
        inverse = inverse - gain @ found @ inverse
        weights = weights + inverse @ found.mT @ (values - found @ weights)
    expected = joint(inputs, wanted, ridge)
    lost = (readout.weights - expected).abs().max()
    assert lost < 1e-6
    assert (weights - expected).abs().max() > 100 * lost


def test_the_ridge_may_be_changed_afterwards() -> None:
    inputs, targets = data()
    readout = AnalyticReadout(features, width=13, outputs=4, ridge=1.0)
    readout.observe(inputs, targets)
    readout(inputs)
    readout.ridge = 5.0
    wanted = nn.functional.one_hot(targets, 4).double()
    assert (readout.weights - joint(inputs, wanted, 5.0)).abs().max() < 1e-8


def test_goes_on() -> None:
    inputs, targets = data()
    readout = AnalyticReadout(features, width=13, outputs=4)
    readout.observe(inputs[:30], targets[:30])
    again = AnalyticReadout(features, width=13, outputs=4)
    again(inputs)
    again.load_state_dict(readout.state_dict())
    assert torch.equal(again(inputs), readout(inputs))
    for one in (readout, again):
        one.observe(inputs[30:], targets[30:])
    assert torch.equal(again(inputs), readout(inputs))


def test_random_features_come_to_their_kernel() -> None:
    """Cho & Saul 2009, degree 1: |x||y| (sin θ + (π − θ) cos θ) / π, over the number of inputs."""
    one, other = torch.randn(2, 10, generator=torch.Generator().manual_seed(3))
    found = RandomFeatures(10, 200_000)(torch.stack([one, other]))
    angle = torch.nn.functional.cosine_similarity(one, other, dim=0).acos()
    kernel = one.norm() * other.norm() * (angle.sin() + (math.pi - angle) * angle.cos()) / math.pi
    torch.testing.assert_close(found[0] @ found[1], kernel / 10, rtol=0.02, atol=0)
    torch.testing.assert_close(found[0] @ found[0], one.square().mean(), rtol=0.02, atol=0)


def test_tells_classes_that_no_line_tells() -> None:
    """Learned one after the other: inside and outside of a ring."""
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(600, 2, generator=generator)
    targets = (inputs.norm(dim=1) > 1.2).long()
    with_one = torch.cat([inputs, torch.ones(600, 1)], dim=1)
    right = []
    for made, width in ((nn.Identity(), 3), (RandomFeatures(3, 100), 100)):
        readout = AnalyticReadout(made, width, outputs=2, ridge=1e-4)
        for one in (0, 1):
            of_class = (targets == one) & (torch.arange(600) < 400)
            readout.observe(with_one[of_class], targets[of_class])
        logits = readout(with_one[400:])
        assert logits.dtype == torch.float32
        right.append((logits.argmax(1) == targets[400:]).float().mean())
    assert right[0] < 0.7
    assert right[1] > 0.9


def test_refused() -> None:
    inputs, targets = data()
    with pytest.raises(ValueError, match=r"ridge must be above 0 and finite, not 0"):
        AnalyticReadout(features, width=13, outputs=4, ridge=0.0)
    readout = AnalyticReadout(features, width=13, outputs=3)
    for wrong in (targets, targets.double(), targets > 1, torch.zeros(60, 4)):
        with pytest.raises(ValueError, match=r"targets must be classes from 0 to 2, or floats \(rows, 3\)"):
            readout.observe(inputs, wrong)
    with pytest.raises(ValueError, match="targets must be of 60 inputs, not 59"):
        readout.observe(inputs, torch.zeros(59, dtype=torch.int64))
    with pytest.raises(ValueError, match="features must be finite"):
        readout.observe(inputs * torch.inf, torch.zeros(60, 3))
    assert not readout.gram.any()
    with pytest.raises(ValueError, match=r"features must be \(rows, 12\), not \(60, 13\)"):
        AnalyticReadout(features, width=12, outputs=3)(inputs)
    with pytest.raises(ValueError, match="outputs must be at least the 3 there are, not 2"):
        readout.grow(2)
    flat = AnalyticReadout(torch.nn.Identity(), width=2, outputs=1, ridge=1e-30)
    flat.observe(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(ValueError, match="ridge must be larger"):
        flat(torch.ones(1, 2))
