"""The parts of the study `language-model` that do not need its minutes."""

import math

import pytest
import torch

from mnemos.progress import silent
from mnemos.studies import language_model, novel_reading


def learned_late(tokens, state):
    """One bit per byte, and none after the second piece that it has seen."""
    seen = (state or 0) + 1
    logits = torch.zeros(*tokens.shape, 2)
    if seen > 2:
        logits[..., 1] = 100.0
    return logits, seen


def test_bits_are_counted_by_what_the_memory_has_seen():
    texts = [torch.ones(40, dtype=torch.int64), torch.ones(30, dtype=torch.int64)]
    cost = novel_reading.bits(learned_late, texts, (4, 8, 16), 4, torch.Generator(), each=3)
    assert cost.by_place == pytest.approx({"4": 1.0, "8": 1.0, "16": 0.0})
    assert cost.overall == pytest.approx(0.5)
    alone = novel_reading.bits(learned_late, texts, (4, 8, 16), 4, torch.Generator(), each=3, carries=False)
    assert alone.overall == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["convolution alone", "Titans", "selective state space"])
def test_decoders_have_as_many_parameters(name):
    equal = language_model.parameters_of(language_model.decoder(language_model.KINDS["attention"]))
    network = language_model.decoder(language_model.KINDS[name], equal)
    assert language_model.parameters_of(network) == pytest.approx(equal, rel=0.01)
    assert network(torch.zeros(1, 3, dtype=torch.int64))[0].shape == (1, 3, novel_reading.VOCABULARY)


def test_the_control_knows_three_steps_and_no_more():
    torch.manual_seed(0)
    network = language_model.decoder(language_model.KINDS[language_model.CONTROL]).eval()
    tokens = torch.randint(256, (1, 12))
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 256
    apart = (network(tokens)[0] - network(changed)[0]).abs().amax(2)[0]
    reach = 3 * language_model.DEPTH
    assert apart[reach] > 0
    assert apart[reach + 1 :].max() == 0


def test_every_kind_is_measured_and_drawn(monkeypatch):
    some = [
        getattr(language_model, name) for name in ("CONTROL", "ATTENTION", "BOTH", "CARRIED", "NOT_CARRIED")
    ]
    monkeypatch.setattr(language_model, "KINDS", {name: language_model.KINDS[name] for name in some})
    text = torch.arange(300) % 50
    measured = language_model.measure_at([text], [text], (8, 16), 2, 0, silent, length=8)
    assert set(language_model.STUDY.thresholds) <= set(measured)
    assert measured["unequal"] < 0.01
    for row in measured["kinds"].values():
        assert 0 < row["bits"] < 2 * math.log2(257)
        assert row["state"] > 0
    assert len(language_model.STUDY.figure(measured).axes) == 2
