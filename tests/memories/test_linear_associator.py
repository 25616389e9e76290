"""What only `LinearAssociator` claims; the laws that it shares with every memory are in the suite."""

import pickle

import pytest
import torch

from mnemos import LinearAssociator
from mnemos.memories.linear_associator import delta, hebb, pseudo_inverse
from mnemos.ops.delta_rule import unit

RULES = {"hebb": hebb, "delta": delta, "pseudo_inverse": pseudo_inverse}
SIZE = 16


def learned(rule, keys, values, **given):
    memory = LinearAssociator(keys.shape[2], values.shape[2], rule)
    return memory, memory.write(memory.initial_state(len(keys)), keys, values, **given)


def right(memory, state, keys, codebook, labels):
    """The share of keys whose answer is nearest, by inner product, to their own value."""
    return (
        ((memory.read(state, keys).values.float() @ codebook.mT).argmax(-1) == labels).float().mean().item()
    )


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_orthogonal_keys_of_any_length_are_exact_by_every_rule(rule):
    keys = torch.linalg.qr(torch.randn(2, SIZE, SIZE))[0] * torch.logspace(-1, 1, SIZE).unsqueeze(1)
    values = torch.randn(2, SIZE, 3)
    memory, state = learned(rule(), keys, values)
    torch.testing.assert_close(memory.read(state, keys).values.float(), values, rtol=1e-4, atol=1e-4)


def test_the_pseudo_inverse_is_exact_up_to_as_many_keys_as_dimensions():
    keys, values = torch.randn(4, SIZE, SIZE), torch.randn(4, SIZE, 5)
    memory, state = learned(pseudo_inverse(), keys, values)
    torch.testing.assert_close(memory.read(state, keys).values.float(), values, rtol=1e-4, atol=1e-4)
    _, state = learned(hebb(), keys, values)
    assert (memory.read(state, keys).values - values).abs().mean() > 0.3


def test_beyond_that_it_weighs_the_pairs_by_their_strengths():
    keys, values = torch.randn(1, 40, SIZE, dtype=torch.float64), torch.randn(1, 40, 5, dtype=torch.float64)
    keys = torch.nn.functional.normalize(keys, dim=2)
    strength = torch.rand(1, 40, dtype=torch.float64)
    _, state = learned(pseudo_inverse(), keys, values, strength=strength)
    root = strength.sqrt().unsqueeze(2)
    expected = torch.linalg.lstsq(root * keys, root * values).solution.mT
    torch.testing.assert_close(state.weights, expected)


def test_a_key_written_again():
    keys, first, last = torch.randn(1, 5, SIZE), torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    keys = torch.linalg.qr(keys.mT)[0].mT.contiguous()
    expected = {"hebb": first + last, "delta": last, "pseudo_inverse": (first + last) / 2}
    for name, rule in RULES.items():
        memory, state = learned(rule(), keys.repeat(1, 2, 1), torch.cat([first, last], dim=1))
        answer = memory.read(state, keys).values.float()
        torch.testing.assert_close(answer, expected[name], rtol=1e-4, atol=1e-5)


def test_written_once_the_delta_rule_recalls_less_than_a_sum():
    """The trap: an advantage of the delta rule shows only where keys come again."""
    torch.manual_seed(0)
    keys, codebook = torch.randn(8, 96, 64), unit(torch.randn(8, 512, 64))
    labels = torch.randint(512, (8, 96))
    values = codebook.gather(1, labels.unsqueeze(2).expand(-1, -1, 64))
    found = {}
    for name, rule in RULES.items():
        memory, state = learned(rule(), keys, values)
        found[name] = right(memory, state, keys, codebook, labels)
    memory, state = learned(delta(), keys, values, strength=torch.full((8, 96), 0.5))
    assert found["hebb"] > 0.97
    assert found["delta"] < 0.8 < right(memory, state, keys, codebook, labels) < found["hebb"]
    last = learned(delta(), keys, values)[1]
    late = right(memory, last, keys[:, -16:], codebook, labels[:, -16:])
    assert late > 0.95 > 0.7 > right(memory, last, keys[:, :16], codebook, labels[:, :16])


def test_written_again_and_again_only_the_delta_rule_follows():
    torch.manual_seed(0)
    keys, codebook, labels = torch.randn(8, 32, 64), torch.randn(8, 512, 64), torch.zeros(0)
    memories = {name: LinearAssociator(64, 64, rule()) for name, rule in RULES.items()}
    states = {name: memory.initial_state(8) for name, memory in memories.items()}
    for _ in range(10):
        labels = torch.randint(512, (8, 32))
        values = codebook.gather(1, labels.unsqueeze(2).expand(-1, -1, 64))
        states = {name: memories[name].write(state, keys, values) for name, state in states.items()}
    found = {name: right(memories[name], states[name], keys, codebook, labels) for name in RULES}
    assert found["delta"] >= 0.95
    assert max(found["hebb"], found["pseudo_inverse"]) <= 0.2


def test_forward_completes_a_pattern_that_it_has_seen():
    memory = LinearAssociator(32)
    patterns = torch.randn(1, 3, 32)
    _, state = memory(patterns)
    cue = patterns * (torch.rand(1, 3, 32) < 0.8)
    outputs, _ = memory(cue, state)
    assert torch.cosine_similarity(outputs, patterns, dim=2).min() > 0.8
    assert memory(patterns)[0][:, 0].eq(0).all()  # nothing is known before the first step


def test_an_input_is_a_key_and_its_value():
    memory = LinearAssociator(6, 2)
    keys, values = torch.randn(3, 4, 6), torch.randn(3, 4, 2)
    _, state = memory(torch.cat([keys, values], dim=2))
    torch.testing.assert_close(state, memory.write(memory.initial_state(3), keys, values))


def test_the_account_of_the_keys_is_kept_in_double_precision():
    memory = LinearAssociator(6, 2, pseudo_inverse()).to(torch.bfloat16)
    outputs, state = memory(torch.randn(3, 4, 8, dtype=torch.bfloat16))
    assert outputs.dtype == torch.bfloat16
    assert {part.dtype for part in (state.weights, *state.seen)} == {torch.float64}
    assert LinearAssociator(6, 2, hebb()).initial_state(3).seen == ()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rules_are_data(rule):
    assert pickle.loads(pickle.dumps(rule())) == rule() == rule()


@pytest.mark.parametrize("name", ["key_size", "value_size"])
def test_sizes_are_checked(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        LinearAssociator(**{"key_size": 3, name: 0})
