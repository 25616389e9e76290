"""Belady's optimum against exhaustive search, and every policy against Belady."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mnemos.retention import (
    Policy,
    belady_hits,
    decayed_strength,
    first_in_first_out,
    hits,
    least_often_used,
    least_recently_used,
    least_surprising,
    most_redundant,
    reservoir,
)

POLICIES = [
    first_in_first_out(),
    least_recently_used(),
    least_often_used(),
    decayed_strength(3.0),
    least_surprising(),
    most_redundant(),
    reservoir(0),
]
traces = st.lists(st.integers(0, 5), max_size=14)


def best_of_all(trace: list[int], capacity: int) -> int:
    """Tries every record that could go at every miss."""

    @cache
    def best(time: int, held: frozenset[int]) -> int:
        if time == len(trace):
            return 0
        record = trace[time]
        if record in held:
            return 1 + best(time + 1, held)
        if len(held) < capacity:
            return best(time + 1, held | {record})
        return max(best(time + 1, held - {gone} | {record}) for gone in held)

    return best(0, frozenset())


@settings(deadline=None)
@given(trace=traces, capacity=st.integers(1, 4))
def test_belady_is_the_best_there_is(trace: list[int], capacity: int) -> None:
    assert belady_hits(trace, capacity) == best_of_all(trace, capacity)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@settings(max_examples=15, deadline=None)
@given(trace=traces, capacity=st.integers(1, 4))
def test_no_policy_beats_belady(policy: Policy, trace: list[int], capacity: int) -> None:
    keys = torch.arange(6.0).unsqueeze(1)
    achieved = hits(trace, capacity, policy, strength=torch.rand(6), keys=keys)
    assert achieved <= belady_hits(trace, capacity)


@settings(max_examples=15, deadline=None)
@given(trace=traces)
def test_room_for_all_misses_only_first_times(trace: list[int]) -> None:
    for policy in POLICIES[:3]:
        assert hits(trace, 6, policy) == len(trace) - len(set(trace)) == belady_hits(trace, 6)


def test_known_traces() -> None:
    # The textbook's anomaly: with four slots first in, first out hits less often than with three.
    anomaly = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]
    assert [hits(anomaly, capacity, first_in_first_out()) for capacity in (3, 4)] == [3, 2]
    assert [hits(anomaly, capacity, least_recently_used()) for capacity in (3, 4)] == [2, 4]
    assert [belady_hits(anomaly, capacity) for capacity in (3, 4)] == [5, 6]
    # Round and round through one more than fits: the least recently used is always the next one asked.
    assert hits([0, 1, 2] * 5, 2, least_recently_used()) == 0
    # A scan of new records drives out a recent one, but not one that is often used.
    scan = [0, 0, 0, 1, 2, 3, 4, 0]
    assert hits(scan, 2, least_recently_used()) == 2
    assert hits(scan, 2, least_often_used()) == 3


def test_strength_and_keys_reach_the_policy() -> None:
    trace = [0, 1, 2, 0, 1]
    assert hits(trace, 2, least_surprising(), strength=torch.tensor([9.0, 1, 1])) == 1
    assert hits(trace, 2, least_surprising(), strength=torch.tensor([1.0, 9, 1])) == 1
    assert hits([0, 1, 2, 3, 0], 3, most_redundant(), keys=torch.tensor([[0.0], [5], [5.1], [9]])) == 1
    with pytest.raises(ValueError, match="most_redundant looks at the keys: give keys"):
        hits(trace, 2, most_redundant())


@pytest.mark.parametrize("count", [belady_hits, lambda trace, capacity: hits(trace, capacity, reservoir(0))])
def test_a_set_without_room_is_refused(count) -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1, not 0"):
        count([1, 2], 0)
