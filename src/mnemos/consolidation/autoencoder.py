"""The variational autoencoder: what inputs look like, learned through a narrow place."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from mnemos.consolidation.generative_model import GenerativeModel, normal

AT_ONCE = 4096  # rows times samples that are decoded together: 13 MB of 784 pixels


class Latents(NamedTuple):
    """Where an input may lie in the narrow place: a normal distribution of independent parts, q(z | x)."""

    mean: Float[Tensor, "rows latents"]  # μ
    log_variance: Float[Tensor, "rows latents"]  # log σ²


@final
class VariationalAutoencoder(GenerativeModel):
    """Pixels from 0 to 1, fully connected, by way of a few normal latents.

    Kingma & Welling 2014, "Auto-Encoding Variational Bayes". The prior p(z) is standard normal; p(x | z)
    gives each pixel the probability of being ink (a grey pixel is ink in part); encoder and decoder are
    networks of rectified layers, the decoder's in the reverse order. By default they are those of van de Ven
    & Tolias 2018 for the digits of MNIST: 784-400-400-z100.

    Args:
        pixels: of an input.
        hidden: the widths of the encoder's layers; none makes both linear.
        latents: that an input is told by.
    """

    def __init__(self, pixels: int = 784, hidden: Sequence[int] = (400, 400), latents: int = 100) -> None:
        super().__init__()
        if min(pixels, latents, *hidden) < 1:
            raise ValueError(
                f"pixels, hidden and latents must be at least 1, not {pixels}, {tuple(hidden)} and {latents}"
            )
        self.pixels, self.hidden, self.latents = pixels, tuple(hidden), latents
        widths = (pixels, *hidden)
        self.encoder = nn.Sequential(*_layers(widths))
        self.mean = nn.Linear(widths[-1], latents)
        self.log_variance = nn.Linear(widths[-1], latents)
        widths = (latents, *reversed(self.hidden))
        self.decoder = nn.Sequential(*_layers(widths), nn.Linear(widths[-1], pixels))  # to logits

    def encode(self, inputs: Float[Tensor, "rows pixels"]) -> Latents:
        """The latents q(z | x) of inputs."""
        features = self.encoder(inputs)
        return Latents(self.mean(features), self.log_variance(features))

    def loss(
        self, inputs: Float[Tensor, "rows pixels"], generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """The negative evidence lower bound in nats, the mean over rows, by one sample of the latents.

        Eq. 10, with the divergence from the prior in closed form (appendix B):
        KL(q(z | x) ‖ p(z)) − log p(x | z).

        Raises:
            ValueError: pixels that are not 0 to 1.
        """
        self._check(inputs)
        mean, log_variance = self.encode(inputs)
        latents = mean + (log_variance / 2).exp() * normal(mean, *mean.shape, generator=generator)
        unlikely = binary_cross_entropy_with_logits(self.decoder(latents), inputs, reduction="sum")
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
        return (unlikely + divergence) / len(inputs)

    @torch.no_grad()
    def sample(self, rows: int, generator: torch.Generator | None = None) -> Float[Tensor, "rows pixels"]:
        """New inputs: the latents are drawn from the prior, the pixels are their probabilities.

        Drawing the pixels too would only add noise that no input has (van de Ven & Tolias do not either).
        """
        latents = normal(self.mean.weight, rows, self.latents, generator=generator)
        return self.decoder(latents).sigmoid()

    def log_likelihood(
        self,
        inputs: Float[Tensor, "rows pixels"],
        samples: int = 50,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " rows"]:
        """log p(x) in nats by importance sampling: log 1/K Σ p(x | z) p(z) / q(z | x), z from q(z | x).

        Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders", eq. 8: in the mean a lower
        bound, which rises with K to log p(x).

        Args:
            samples: K.

        Raises:
            ValueError: pixels that are not 0 to 1, or no sample.
        """
        self._check(inputs)
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        mean, log_variance = self.encode(inputs)
        scale, found = (log_variance / 2).exp(), []
        step = max(1, AT_ONCE // max(1, len(inputs)))
        for start in range(0, samples, step):
            noise = normal(mean, min(step, samples - start), *mean.shape, generator=generator)
            latents = mean + scale * noise
            logits = self.decoder(latents)
            likely = (inputs * logits - softplus(logits)).sum(-1)
            # log p(z) − log q(z | x): the constants of the two normal distributions cancel.
            found.append(likely + (noise.square() - latents.square() + log_variance).sum(-1) / 2)
        return torch.cat(found).logsumexp(0) - math.log(samples)

    def _check(self, inputs: Tensor) -> None:
        if len(inputs) and not (inputs.min() >= 0 and inputs.max() <= 1):
            raise ValueError(f"pixels must be 0 to 1, not {float(inputs.min())} to {float(inputs.max())}")


def _layers(widths: Sequence[int]) -> Iterable[nn.Module]:
    for width, following in pairwise(widths):
        yield from (nn.Linear(width, following), nn.ReLU())
