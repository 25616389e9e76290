"""The studies of continual learning, in miniature: everything runs, and nothing is left out."""

import pytest
import torch

from mnemos.progress import silent
from mnemos.studies import continual_methods, split_mnist
from mnemos.tasks.mnist import Digits


@pytest.fixture
def digits():
    """Ten patterns of six by six pixels, with noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 200, (10, 6, 6), generator=generator)

    def drawn(count):
        labels = torch.arange(count) % 10
        noise = torch.randint(0, 50, (count, 6, 6), generator=generator)
        return (patterns[labels] + noise).to(torch.uint8), labels

    return Digits(*drawn(700), *drawn(60))


def test_split_mnist(digits, monkeypatch):
    monkeypatch.setattr(continual_methods, "FEATURES", 30)
    measured = split_mnist.measure_at(digits, 3, 1, 0, silent, width=12, exemplars=3)
    assert set(split_mnist.STUDY.thresholds) <= set(measured)
    for kind, methods in measured["rows"].items():
        assert len(methods) == len(split_mnist.METHODS) - (kind != "class") * len(split_mnist.CLASSES_ONLY)
        for name, (run,) in methods.items():
            assert all(0 <= value <= 1 for value in run["accuracy"].values())
            assert (run["bytes"] > 0) == (name not in ("none", "generative classifier"))
            assert ("store" in run["accuracy"]) == ("both" in run["accuracy"])
    split_mnist.STUDY.figure(measured)
