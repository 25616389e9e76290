"""Replay through feedback: the network that is to remember makes the inputs of its past itself."""

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.consolidation.autoencoder import VariationalAutoencoder
from mnemos.consolidation.generative_model import GenerativeModel
from mnemos.consolidation.generative_replay import Pseudorehearsal
from mnemos.consolidation.term import Batches, Objective


@final
class FeedbackNetwork(GenerativeModel):
    """A classifier and a variational autoencoder that have their first layers in common.

    Van de Ven & Tolias 2018, "Generative replay with feedback connections as a general strategy for
    continual learning", section 3: classes are read from the last layer of the encoder, and the decoder is
    what leads back. Both are learned at once,

        loss = cross_entropy(network(inputs), targets) + network.loss(inputs)

    Args:
        autoencoder: the network's layers, and the way back.
        classes: outputs.
    """

    def __init__(self, autoencoder: VariationalAutoencoder, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be at least 1, not {classes}")
        self.autoencoder, self.classes = autoencoder, classes
        self.classifier = nn.Linear((autoencoder.pixels, *autoencoder.hidden)[-1], classes)

    def forward(self, inputs: Float[Tensor, "rows pixels"]) -> Float[Tensor, "rows classes"]:
        """Logits."""
        return self.classifier(self.autoencoder.encoder(inputs))

    def loss(
        self, inputs: Float[Tensor, "rows pixels"], generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """That of the autoencoder, in nats a pixel, as is fit to stand beside a classification loss.

        The paper's text adds the two losses; its code divides the one of generation by the number of pixels.
        """
        return self.autoencoder.loss(inputs, generator) / self.autoencoder.pixels

    def sample(self, rows: int, generator: torch.Generator | None = None) -> Float[Tensor, "rows pixels"]:
        return self.autoencoder.sample(rows, generator)


@final
class FeedbackReplay(Pseudorehearsal):
    """What the network made before is answered as it was before, and can still be made.

    Van de Ven & Tolias 2018, replay through feedback. It wants a model that is its own generator, such as
    `FeedbackNetwork`, and whose own loss is part of the loss of what is new:

        new = cross_entropy(network(inputs), targets) + network.loss(inputs)
        loss = consolidator.loss(new, inputs)

    Args:
        rows: inputs that are made beside each batch.
        temperature: of soft targets, above 0; None gives hard labels, for targets that are classes.
        seed: of all that is drawn.
    """

    name = "replay through feedback"

    def begin(self, model: nn.Module, objective: Objective) -> None:
        if not isinstance(model, GenerativeModel):
            raise TypeError(
                f"the model must be a GenerativeModel, which makes its own inputs, not {type(model).__name__}"
            )
        super().begin(model, objective)
        self.generator = model

    def loss(self, inputs: Tensor, *, attached: bool) -> Float[Tensor, ""] | None:
        replayed = self.replayed(inputs)
        if replayed is None:
            return None
        return self.lesson(replayed) + self.generator.loss(replayed, self.random)

    def end_context(self, batches: Batches) -> None:
        super().end_context(batches)
        self._recall()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._recall()

    def _recall(self) -> None:
        """What answers is what makes."""
        network = self.teacher.network
        assert network is None or isinstance(network, GenerativeModel)
        self.previous = network
