import pytest
import torch
from torch import Tensor

from mnemos.consolidation import GenerativeClassifier, VariationalAutoencoder


def classifier(samples: int = 5) -> GenerativeClassifier:
    torch.manual_seed(0)
    return GenerativeClassifier([VariationalAutoencoder(6, (4,), 2) for _ in range(3)], samples)


def inputs(rows: int = 8) -> Tensor:
    return torch.rand(rows, 6, generator=torch.Generator().manual_seed(1))


def test_the_scores_are_the_likelihoods_of_the_classes() -> None:
    model = classifier()
    scores = model(inputs())
    for one, column in zip(model.models, scores.unbind(1), strict=True):
        again = one.log_likelihood(inputs(), 5, torch.Generator().manual_seed(0))  # type: ignore[operator]
        torch.testing.assert_close(column, again)
    assert torch.equal(scores, model(inputs()))
    assert not scores.requires_grad


def test_every_input_is_learned_by_its_own_class() -> None:
    model, targets = classifier(), torch.tensor([0, 2, 2, 0, 0, 0, 0, 2])
    noise, again = (torch.Generator().manual_seed(2) for _ in range(2))
    losses = [model.models[one].loss(inputs()[targets == one], noise) for one in (0, 2)]  # type: ignore[operator]
    found = model.loss(inputs(), targets, again)
    torch.testing.assert_close(found, losses[0] * 5 / 8 + losses[1] * 3 / 8)


def test_nothing_is_forgotten() -> None:
    """Not by a bit, also where the optimiser still has momentum."""
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)

    def learn(target: int) -> Tensor:
        for _ in range(3):
            optimizer.zero_grad()
            model.loss(inputs(), torch.full((8,), target)).backward()
            optimizer.step()
        return model(inputs())

    untaught = model(inputs())
    first = learn(1)
    second = learn(2)
    assert torch.equal(first[:, 1], second[:, 1])
    assert (first[:, 1] > untaught[:, 1]).float().mean() > 0.5
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.equal(first[:, 2], second[:, 2])


def test_refused() -> None:
    with pytest.raises(ValueError, match="models must be at least one"):
        GenerativeClassifier([])
    with pytest.raises(ValueError, match="samples must be at least 1, not 0"):
        classifier(0)
    for targets in (torch.full((8,), 3), torch.full((8,), -1)):
        with pytest.raises(ValueError, match="targets must be classes from 0 to 2"):
            classifier().loss(inputs(), targets)
    with pytest.raises(ValueError, match="targets must be classes from 0 to 2"):
        classifier().loss(inputs(0), torch.empty(0, dtype=torch.int64))
