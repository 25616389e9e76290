import math

import torch
from torch.nn import functional

from mnemos.tasks import copying


def test_symbols_blanks_signal_answer() -> None:
    inputs, targets = copying.batch(50, 7, torch.Generator().manual_seed(0))
    assert inputs.shape == targets.shape == (50, 27)
    assert (inputs[:, :10] < copying.SYMBOLS).all()
    assert (inputs[:, 10:16] == copying.BLANK).all()
    assert (inputs[:, 16] == copying.GO).all()
    assert (inputs[:, 17:] == copying.BLANK).all()
    assert (targets[:, :17] == copying.BLANK).all()
    assert torch.equal(targets[:, 17:], inputs[:, :10])
    assert inputs[:, :10].unique().numel() == copying.SYMBOLS


def test_the_memoryless_loss_is_that_of_guessing_among_the_symbols() -> None:
    _, targets = copying.batch(3, 100, torch.Generator().manual_seed(1))
    logits = torch.full((3, 120, copying.VOCABULARY), -1e4)
    logits[:, :110, copying.BLANK] = 0
    logits[:, 110:, : copying.SYMBOLS] = 0
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert math.isclose(loss.item(), copying.memoryless_loss(100), rel_tol=1e-5)
