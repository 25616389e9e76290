"""The parts of the study `ab-ac`, with one network."""

import copy

import torch

from mnemos.studies import ab_ac


def one_network(seed: int) -> tuple[ab_ac.Lists, torch.nn.Sequential, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    lists = ab_ac.two_lists(generator)
    return lists, ab_ac._taught(lists, generator), generator


def test_lists_share_cues_and_nothing_else() -> None:
    lists = ab_ac.two_lists(torch.Generator().manual_seed(0))
    assert torch.equal(lists.inputs[0, :, : ab_ac.CUE], lists.inputs[1, :, : ab_ac.CUE])
    assert (lists.inputs[:, :, ab_ac.CUE :] == lists.inputs[:, :1, ab_ac.CUE :]).all()
    assert lists.right(lists.responses[1], 1).all()
    assert not lists.right(lists.responses[1], 0).any()


def test_a_second_list_wipes_out_the_first_unless_it_is_replayed(monkeypatch) -> None:
    monkeypatch.setattr(ab_ac, "PASSES", 7)
    lists, taught, generator = one_network(3)
    assert ab_ac._right(lists, taught)[ab_ac.AB].all()
    plain, nothing = ab_ac._learned(lists, copy.deepcopy(taught), ab_ac.Arm(), generator)
    half, stored = ab_ac._learned(lists, copy.deepcopy(taught), ab_ac.Arm(ab_ac.CUES // 2), generator)
    assert plain[0, ab_ac.AB].all()  # passes, lists, cues
    assert plain[-1, ab_ac.AB].float().mean() <= 0.1
    assert plain[-1, ab_ac.AC].float().mean() >= 0.9
    assert not nothing.any()
    assert stored[ab_ac.AB].sum() == ab_ac.CUES // 2
    assert not stored[ab_ac.AC].any()
    assert half[-1, ab_ac.AB, stored[ab_ac.AB]].float().mean() >= 0.8
    assert half[-1, ab_ac.AB, ~stored[ab_ac.AB]].float().mean() <= 0.3


def test_lists_are_judged_when_the_second_is_learned() -> None:
    """Two networks of two cues: plain has learned AC after one pass, so replay is judged after two."""
    passes = ab_ac.PASSES + 1
    plain = torch.zeros(2, passes, 2, 2, dtype=torch.bool)
    plain[:, 0, ab_ac.AB] = plain[:, 1:, ab_ac.AC] = True
    replay = torch.ones_like(plain)
    replay[:, 2, ab_ac.AC, 0] = False
    stored = torch.zeros(2, 2, 2, dtype=torch.bool)
    stored[:, ab_ac.AB, 0] = True
    right = {"plain": plain, "further": plain, "replay": replay, "half": replay}
    found = ab_ac._summary(right, dict.fromkeys(right, stored))
    assert (found["passes_plain"], found["passes_replay"]) == (1, 2)
    assert (found["ab_plain"], found["ac_plain"]) == (0, 1)
    assert (found["ab_replay"], found["ac_replay"]) == (1, 0.5)
    assert found["systems"]["plain"]["ab"] == {"store_only": 0.5, "cortex_only": 0, "both": 0.5}
    assert ab_ac._passes(torch.zeros(5)) == ab_ac.PASSES
    assert len(ab_ac.STUDY.figure(found).axes) == 2
