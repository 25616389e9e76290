import torch

from mnemos.tasks.facts import random_facts


def test_answers_are_equally_likely_and_do_not_depend_on_keys() -> None:
    facts = random_facts(20_000, 8, 16, torch.Generator().manual_seed(0))
    assert facts.keys.shape == (20_000, 8)
    shares = facts.answers.bincount(minlength=16) / 20_000
    assert (shares - 1 / 16).abs().max() < 0.01
    by_answer = torch.stack([facts.keys[facts.answers == answer].mean(0) for answer in range(16)])
    assert by_answer.abs().max() < 5 * (16 / 20_000) ** 0.5
    again = random_facts(20_000, 8, 16, torch.Generator().manual_seed(0))
    assert torch.equal(facts.keys, again.keys)
