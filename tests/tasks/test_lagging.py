from itertools import islice

import torch

from mnemos.tasks import lagging


def test_targets_are_the_tokens_of_so_many_steps_before() -> None:
    lags = (1, 4, 11)
    parts = list(islice(lagging.segments(3, 5, lags, 6, torch.Generator().manual_seed(0)), 8))
    tokens, targets = (torch.cat(kind, dim=1) for kind in zip(*parts, strict=True))
    assert tokens.shape == (3, 40)
    assert targets.shape == (3, 40, 3)
    for index, lag in enumerate(lags):
        assert torch.equal(targets[:, lag:, index], tokens[:, :-lag])
    assert tokens.unique().tolist() == list(range(6))
