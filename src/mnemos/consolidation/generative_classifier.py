"""A classifier that forgets nothing: a model of each class, which no other class ever touches."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mnemos.consolidation.autoencoder import VariationalAutoencoder


@final
class GenerativeClassifier(nn.Module):
    """The class is the one whose model finds the input most likely: argmax over y of log p(x | y).

    Van de Ven, Li & Tolias 2021, "Class-Incremental Learning with Generative Classifiers"; every class is
    held to be as frequent as any other. For the digits of MNIST they take small models, 784-85-85-z5 each:

        classifier = GenerativeClassifier([VariationalAutoencoder(784, (85, 85), 5) for _ in range(10)])
        loss = classifier.loss(inputs, targets)

    Only the models of the classes in a batch get a gradient. So an optimiser that passes over weights
    without one, as torch's do after `zero_grad()`, leaves all others as they were, to the bit.

    A class that was never learned answers by its untrained model: leave it out of the scores.

    Args:
        models: of each class.
        samples: K, by which a likelihood is measured; more is better and as much slower.
        seed: of these samples. The same inputs always get the same scores.
    """

    def __init__(self, models: Sequence[VariationalAutoencoder], samples: int = 50, *, seed: int = 0) -> None:
        super().__init__()
        if not models:
            raise ValueError("models must be at least one")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        self.models, self.samples, self.seed = nn.ModuleList(models), samples, seed

    def loss(
        self,
        inputs: Float[Tensor, "rows pixels"],
        targets: Int[Tensor, " rows"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The negative evidence lower bound of each input by its own class's model, the mean over rows.

        Raises:
            ValueError: there is no input, or a class has no model.
        """
        if not len(targets) or not 0 <= int(targets.min()) <= int(targets.max()) < len(self.models):
            raise ValueError(
                f"targets must be classes from 0 to {len(self.models) - 1}, not {targets.unique()}"
            )
        parts = []
        for one in targets.unique().tolist():
            own = inputs[targets == one]
            parts.append(self._model(one).loss(own, generator) * (len(own) / len(inputs)))
        return torch.stack(parts).sum()

    @torch.no_grad()
    def forward(self, inputs: Float[Tensor, "rows pixels"]) -> Float[Tensor, "rows classes"]:
        """log p(x | y) of each class y, in nats; its gradient is not kept, as no one learns by it."""
        found = []
        for one in range(len(self.models)):
            generator = torch.Generator().manual_seed(self.seed)
            found.append(self._model(one).log_likelihood(inputs, self.samples, generator))
        return torch.stack(found, 1)

    def _model(self, one: int) -> VariationalAutoencoder:
        model = self.models[one]
        assert isinstance(model, VariationalAutoencoder)
        return model
