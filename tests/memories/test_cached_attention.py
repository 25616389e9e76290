"""What only `CachedAttention` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch

from mnemos.memories.cached_attention import CachedAttention
from mnemos.retention import Policy, attention_sinks, first_in_first_out, heavy_hitters


def small(policy: Policy, slots: int = 4) -> CachedAttention:
    torch.manual_seed(0)
    return CachedAttention(6, slots=slots, policy=policy, heads=2)


def kept(memory: CachedAttention, inputs: torch.Tensor) -> list[list[int]]:
    """The numbers of the steps in the cache after every step."""
    found, state = [], None
    for step in inputs.split(1, dim=1):
        _, state = memory(step, state)
        found.append(sorted(number for number in state.usage.ids[0].tolist() if number >= 0))
    return found


def test_a_window_keeps_the_last() -> None:
    found = kept(small(first_in_first_out()), torch.randn(1, 12, 6))
    assert found == [list(range(max(0, last - 3), last + 1)) for last in range(12)]


def test_sinks_stay_and_the_rest_is_a_window() -> None:
    found = kept(small(attention_sinks(2)), torch.randn(1, 12, 6))
    assert found[:4] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert found[4:] == [[0, 1, last - 1, last] for last in range(4, 12)]


def test_a_cache_that_is_never_full_is_causal_attention() -> None:
    memory = small(first_in_first_out(), slots=9)
    with torch.no_grad():
        memory.distance_bias.normal_()
    inputs = torch.randn(2, 9, 6)
    queries, keys, values = (
        x.unflatten(2, (2, 3)).transpose(1, 2) for x in memory.to_queries_keys_values(inputs).chunk(3, dim=2)
    )
    distance = torch.arange(9).unsqueeze(1) - torch.arange(9)
    scores = queries @ keys.mT / 3**0.5 + memory.distance_bias[:, distance.clamp_min(0)]
    weights = scores.masked_fill(distance < 0, -torch.inf).softmax(3)
    expected = memory.output((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(memory(inputs)[0], expected)


def attended() -> tuple[CachedAttention, torch.Tensor]:
    """A memory, and steps of which the third gets nearly all attention, whoever asks."""
    memory = small(heavy_hitters(2))
    with torch.no_grad():
        memory.to_queries_keys_values.weight.zero_()
        for head in range(2):
            memory.to_queries_keys_values.weight[3 * head, 0] = 10.0  # queries
            memory.to_queries_keys_values.weight[6 + 3 * head, 1] = 1.0  # keys
    inputs = torch.zeros(1, 12, 6)
    inputs[:, :, 0], inputs[0, 2, 1] = 1.0, 5.0
    return memory, inputs


def test_heavy_hitters_stay_and_so_do_the_last() -> None:
    memory, inputs = attended()
    for last, found in enumerate(kept(memory, inputs)):
        assert set(range(max(0, last - 2), last + 1)) <= set(found)
        assert last < 2 or 2 in found


def test_strength_is_the_attention_that_a_step_got() -> None:
    memory = small(heavy_hitters(1), slots=8)
    _, state = memory(torch.randn(2, 5, 6))
    torch.testing.assert_close(state.usage.strength.sum(1), torch.full((2,), 5.0))  # each step gave one


def test_both_together() -> None:
    memory, inputs = attended()
    memory.policy = attention_sinks(1, heavy_hitters(1))
    found = kept(memory, inputs)
    assert all({0, 2, last - 1, last} <= set(numbers) for last, numbers in list(enumerate(found))[4:])


def test_what_policies_are_called_and_what_they_refuse() -> None:
    assert attention_sinks(4).name == "attention_sinks(4, first_in_first_out)"
    assert attention_sinks(4, heavy_hitters(9)).name == "attention_sinks(4, heavy_hitters(9))"
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        attention_sinks(0)
    with pytest.raises(ValueError, match="recent must be at least 0, not -1"):
        heavy_hitters(-1)


@pytest.mark.parametrize("name", ["input_size", "heads", "key_size", "slots"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        CachedAttention(**{"input_size": 3, "slots": 2, name: 0}, policy=first_in_first_out())
