"""Two contexts of two classes each, all four of which must be told apart at the end."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnemos.consolidation import (
    Consolidator,
    FeedbackNetwork,
    FeedbackReplay,
    GenerativeClassifier,
    GenerativeReplay,
    VariationalAutoencoder,
)

HEIGHTS = torch.tensor([[0, 1], [2, 3], [0, 2], [1, 3]])  # of the two bars of each class


def bars(classes: Tensor, generator: torch.Generator) -> Tensor:
    """8 by 8 pixels: two bars two pixels high, with gaps. No pixel says to which context they belong."""
    images = torch.zeros(len(classes), 4, 2, 8)
    images[torch.arange(len(classes)).unsqueeze(1), HEIGHTS[classes]] = 1.0
    ink = torch.rand(len(classes), 1, 1, 8, generator=generator) < 0.8
    return (images * ink).flatten(1)


def learn(consolidator: Consolidator, objective: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """The part of each context's examples that is right at the end."""
    network = consolidator.model
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for context in range(2):
        for _ in range(120):
            targets = torch.randint(2, (32,), generator=generator) + 2 * context
            inputs = bars(targets, generator)
            loss = consolidator.loss(objective(inputs, targets), inputs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            consolidator.observe(inputs, targets)
        consolidator.end_context()
    asked = torch.arange(4).repeat_interleave(50)
    right = network(bars(asked, generator)).argmax(1) == asked
    return [float(part.float().mean()) for part in right.split(100)]


def perceptron() -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    return network, lambda inputs, targets: cross_entropy(network(inputs), targets)


def test_without_replay_the_past_is_lost() -> None:
    network, objective = perceptron()
    first, second = learn(Consolidator(network, []), objective)
    assert first <= 0.1
    assert second >= 0.9


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_generative_replay(temperature: float | None) -> None:
    network, objective = perceptron()
    generator = VariationalAutoencoder(64, (32,), 4)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2)
    term = GenerativeReplay(generator, optimizer, rows=32, temperature=temperature)
    assert min(learn(Consolidator(network, [term]), objective)) >= 0.9


def test_replay_through_feedback() -> None:
    torch.manual_seed(0)
    network = FeedbackNetwork(VariationalAutoencoder(64, (32,), 4), 4)
    consolidator = Consolidator(network, [FeedbackReplay(rows=32)])

    def objective(inputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(network(inputs), targets) + network.loss(inputs)

    assert min(learn(consolidator, objective)) >= 0.9


def test_the_generative_classifier() -> None:
    torch.manual_seed(0)
    network = GenerativeClassifier([VariationalAutoencoder(64, (16,), 2) for _ in range(4)], samples=10)
    assert min(learn(Consolidator(network, []), network.loss)) >= 0.9
