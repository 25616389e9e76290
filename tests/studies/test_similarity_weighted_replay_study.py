"""The study `similarity-weighted-replay` on few digits of few pixels."""

import torch

from mnemos.progress import silent
from mnemos.studies import similarity_weighted_replay
from mnemos.tasks.mnist import Digits


def few_digits(seed: int = 0) -> Digits:
    """Ten classes of six by six pixels, of which the ninth resembles the fourth."""
    generator = torch.Generator().manual_seed(seed)
    pure = torch.randint(2, (10, 36), generator=generator) * 160 + 40
    pure[9] = pure[4]
    pure[9, :6] = 240 - pure[4, :6]

    def some(each: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(10).repeat_interleave(each)
        noise = torch.randint(-40, 41, (10 * each, 36), generator=generator)
        return (pure[labels] + noise).clamp(0, 255).to(torch.uint8).view(-1, 6, 6), labels

    return Digits(*some(60), *some(20))


def test_what_resembles_the_new_is_replayed(monkeypatch) -> None:
    study = similarity_weighted_replay
    sizes = {"NETWORKS": 1, "OLD_STEPS": 150, "OLD_ROWS": 32, "STEPS": 80, "ROWS": 8, "STORED": 30}
    sizes |= {"BUDGETS": (3, 12), "BUDGET": 3, "WIDTHS": (32, 16), "OLD_RATE": 1e-2}
    for name, value in sizes.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "mnist", few_digits)
    found = study.measure(0, False, silent)
    assert found["old_before"] >= 0.95
    assert found["sibling_without_replay"] <= 0.1
    assert found["share_of_sibling_drawn"] >= 2 / 9
    assert found["sibling_similar"] >= 0.8
    assert found["new"]["similar"]["3"] >= 0.8
    assert found["sibling_beyond_four_times"] == found["sibling_similar"] - found["sibling"]["uniform"]["12"]
    assert found["systems"]["store_only"]["new"] >= 0.8
    assert study.measure(0, False, silent) == found
    assert len(study.STUDY.figure(found).axes) == 3
