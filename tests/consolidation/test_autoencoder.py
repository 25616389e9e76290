import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from mnemos.consolidation import VariationalAutoencoder


def autoencoder(latents: int = 3) -> VariationalAutoencoder:
    torch.manual_seed(0)
    model = VariationalAutoencoder(6, (5, 4), latents).double()
    with torch.no_grad():  # far from nothing: by default all is about as likely
        for one in model.parameters():
            one.mul_(2.5)
    return model


def pixels(rows: int = 7) -> Tensor:
    return torch.rand(rows, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def seeded(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_the_negative_evidence_lower_bound() -> None:
    model, inputs = autoencoder(), pixels()
    mean, log_variance = model.encode(inputs)
    latents = Normal(mean, (log_variance / 2).exp())
    drawn = mean + latents.stddev * torch.randn(7, 3, generator=seeded(), dtype=torch.float64)
    likely = Bernoulli(logits=model.decoder(drawn), validate_args=False).log_prob(inputs).sum(1)
    expected = kl_divergence(latents, Normal(torch.zeros(()), torch.ones(()))).sum(1) - likely
    torch.testing.assert_close(model.loss(inputs, seeded()), expected.mean())


def test_every_parameter_learns() -> None:
    model = autoencoder()
    model.loss(pixels(), seeded()).backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in model.parameters())


def test_what_does_not_depend_on_the_latents_is_known_exactly() -> None:
    model, inputs = autoencoder(), pixels()
    with torch.no_grad():
        for part in (model.mean, model.log_variance):
            part.weight.zero_()
            part.bias.zero_()
        model.decoder[-1].weight.zero_()  # type: ignore[operator, union-attr]
    bias: Tensor = model.decoder[-1].bias  # type: ignore[assignment]
    expected = (inputs * bias.sigmoid().log() + (1 - inputs) * (-bias).sigmoid().log()).sum(1)
    for samples in (1, 3):
        torch.testing.assert_close(model.log_likelihood(inputs, samples), expected)
    torch.testing.assert_close(model.loss(inputs), -expected.mean())


def integral(model: VariationalAutoencoder, inputs: Tensor) -> Tensor:
    """log p(x) of one latent, summed over a fine grid."""
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64).unsqueeze(1)
    logits = model.decoder(grid)
    likely = (inputs.unsqueeze(1) * logits - torch.nn.functional.softplus(logits)).sum(2)
    prior = Normal(torch.zeros((), dtype=torch.float64), 1.0).log_prob(grid).squeeze(1)
    return (likely + prior).logsumexp(1) + math.log(18 / 20_000)


@torch.no_grad()
def test_importance_sampling_rises_to_the_likelihood() -> None:
    """From the evidence lower bound, with one sample, to the integral over the latents."""
    model, inputs = autoencoder(latents=1), pixels(4)
    exact = integral(model, inputs)
    torch.testing.assert_close(model.log_likelihood(inputs, 20_000, seeded()), exact, atol=0.02, rtol=0)
    often = inputs.repeat(5000, 1)
    bounds = [-model.loss(often, seeded())]
    for samples in (1, 2, 8, 64):
        bounds.append(model.log_likelihood(often, samples, seeded()).mean())
    assert bounds[0].item() == pytest.approx(bounds[1].item(), abs=0.05)  # the same in expectation
    assert all(less + 0.01 < more for less, more in pairwise(bounds[1:]))
    assert bounds[-1] < exact.mean()


def test_samples() -> None:
    model = autoencoder()
    made = model.sample(50, seeded())
    assert made.shape == (50, 6)
    assert made.dtype == torch.float64
    assert not made.requires_grad
    assert made.min() >= 0
    assert made.max() <= 1
    assert made.std(0).min() > 0.02
    assert torch.equal(made, model.sample(50, seeded()))
    assert not torch.equal(made, model.sample(50, seeded(3)))


def test_linear() -> None:
    model = VariationalAutoencoder(6, (), 2)
    assert model.sample(3).shape == (3, 6)
    assert model.loss(torch.rand(3, 6)).isfinite()


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"must be at least 1, not 6, \(4, 0\) and 2"):
        VariationalAutoencoder(6, (4, 0), 2)
    model = autoencoder()
    with pytest.raises(ValueError, match=r"pixels must be 0 to 1, not 2.* to 2"):
        model.loss(pixels() + 2)
    with pytest.raises(ValueError, match="pixels must be 0 to 1, not nan to nan"):
        model.log_likelihood(pixels() * math.nan)
    with pytest.raises(ValueError, match="samples must be at least 1, not 0"):
        model.log_likelihood(pixels(), 0)
