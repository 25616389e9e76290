"""Every policy against a plain Python oracle on random traces."""

import itertools
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnemos.retention import (
    POLICY_NAMES,
    Policy,
    Usage,
    decayed_strength,
    first_in_first_out,
    least_often_used,
    least_recently_used,
    least_surprising,
    most_redundant,
    named,
    order_of_departure,
    reservoir,
)

ALL = [
    first_in_first_out(),
    least_recently_used(),
    least_often_used(),
    decayed_strength(2.0),
    least_surprising(),
    most_redundant(),
    reservoir(3),
]


@dataclass
class Record:
    id: int
    written_at: int
    last_read: int
    strength: int
    key: tuple[int, ...]
    times_read: int = field(default=0)


@st.composite
def traces(draw: Callable, max_records: int = 9) -> tuple[list[Record], int]:
    """Records as a random trace of writes and reads left them, shuffled; and the time it is."""
    records: list[Record] = []
    now = draw(st.integers(0, 3))
    next_id = 0
    for _ in range(draw(st.integers(0, 25))):
        now += draw(st.integers(0, 2))  # several things may happen at one time
        if not records or (draw(st.booleans()) and len(records) < max_records):
            next_id += draw(st.integers(1, 3))  # ids that are gone leave gaps
            key = draw(st.tuples(st.integers(-2, 2), st.integers(-2, 2)))
            records.append(Record(next_id, now, now, draw(st.integers(0, 3)), key))
        else:
            read = draw(st.sampled_from(records))
            read.last_read, read.times_read = now, read.times_read + 1
    return draw(st.permutations(records)), now + draw(st.integers(0, 3))


def as_tensors(records: list[Record]) -> tuple[Usage, Tensor]:
    def column(name: str, dtype: torch.dtype) -> Tensor:
        return torch.tensor([getattr(record, name) for record in records], dtype=dtype)

    usage = Usage(
        column("id", torch.int64),
        column("written_at", torch.float64),
        column("last_read", torch.float64),
        column("times_read", torch.int64),
        column("strength", torch.float32),
    )
    return usage, torch.tensor([record.key for record in records]).reshape(len(records), 2).float()


def departure(policy: Policy, records: list[Record], now: float) -> list[Record]:
    order = order_of_departure(policy, *as_tensors(records), float(now))
    return [records[position] for position in order.tolist()]


def distance_to_later(record: Record, records: list[Record]) -> float:
    return min(
        (math.dist(record.key, other.key) for other in records if other.id > record.id), default=math.inf
    )


ORACLES = {
    "first_in_first_out": lambda record, records: (record.id,),
    "least_recently_used": lambda record, records: (record.last_read, record.id),
    "least_often_used": lambda record, records: (record.times_read, record.last_read, record.id),
    "least_surprising": lambda record, records: (record.strength, record.id),
    "most_redundant": lambda record, records: (distance_to_later(record, records), record.id),
}


@pytest.mark.parametrize("policy", [policy for policy in ALL if policy.name in ORACLES], ids=lambda p: p.name)
@settings(max_examples=60, deadline=None)
@given(trace=traces())
def test_records_go_in_the_order_of_the_oracle(policy: Policy, trace: tuple[list[Record], int]) -> None:
    records, now = trace
    expected = sorted(records, key=lambda record: ORACLES[policy.name](record, records))
    assert departure(policy, records, now) == expected


@settings(max_examples=100, deadline=None)
@given(trace=traces())
def test_decayed_strength_goes_by_the_exact_worth(trace: tuple[list[Record], int]) -> None:
    records, now = trace

    def worth(record: Record) -> Fraction:  # a half-life of 1 makes every worth a fraction
        return record.strength * (1 + record.times_read) * Fraction(1, 2 ** (now - record.last_read))

    order = departure(decayed_strength(1.0), records, now)
    for first, then in itertools.pairwise(order):
        assert worth(first) <= worth(then) * Fraction(1 + 1e-12)  # log2(6) - 1 and log2(3) may differ
        if (first.strength, first.times_read, first.last_read) == (
            then.strength,
            then.times_read,
            then.last_read,
        ):
            assert first.id < then.id


def test_decayed_strength_does_not_underflow_for_what_is_long_gone() -> None:
    ages = [(9e6, 1), (8e6, 2), (5e6, 3), (1e7, 4)]
    records = [Record(id_, 0, int(1e7 - age), 1, (0, 0)) for age, id_ in ages]
    assert [record.id for record in departure(decayed_strength(1.0), records, 1e7)] == [4, 1, 2, 3]


def test_the_limits_of_decayed_strength() -> None:
    """Never decaying it is reinforced strength; decaying at once it is the least recently used."""
    records = [Record(1, 0, 9, 1, (0, 0), 1), Record(2, 0, 3, 5, (0, 0), 4), Record(3, 0, 6, 1, (0, 0), 9)]
    assert [record.id for record in departure(decayed_strength(math.inf), records, 10)] == [1, 3, 2]
    assert departure(decayed_strength(1e-6), records, 10) == departure(least_recently_used(), records, 10)


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
@settings(max_examples=20, deadline=None)
@given(trace=traces(), data=st.data())
def test_a_batch_is_decided_row_by_row(
    policy: Policy, trace: tuple[list[Record], int], data: st.DataObject
) -> None:
    records, now = trace
    rows = [as_tensors(data.draw(st.permutations(records))) for _ in range(3)]
    usage = Usage(*[torch.stack(column) for column in zip(*[usage for usage, _ in rows], strict=True)])
    together = order_of_departure(policy, usage, torch.stack([keys for _, keys in rows]), float(now))
    for row, (usage, keys) in enumerate(rows):
        assert torch.equal(together[row], order_of_departure(policy, usage, keys, float(now)))


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
@settings(max_examples=20, deadline=None)
@given(trace=traces(), data=st.data())
def test_the_order_does_not_depend_on_where_the_records_lie(
    policy: Policy, trace: tuple[list[Record], int], data: st.DataObject
) -> None:
    records, now = trace
    shuffled = data.draw(st.permutations(records))
    assert departure(policy, records, now) == departure(policy, shuffled, now)


def test_most_redundant_keeps_the_newest_of_duplicates_and_goes_by_bits_for_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(60, 16, generator=generator)
    keys[7], keys[30] = keys[50], keys[41]
    usage = fresh_usage(60)
    assert order_of_departure(most_redundant(), usage, keys, 0.0)[:2].tolist() == [7, 30]
    assert order_of_departure(most_redundant(), usage, keys, 0.0)[-1] == 59
    bits = torch.randint(2, (60, 24), generator=generator)
    hamming = (bits.unsqueeze(0) != bits.unsqueeze(1)).sum(-1)
    nearest = [hamming[row, row + 1 :].min().item() if row < 59 else math.inf for row in range(60)]
    expected = sorted(range(60), key=lambda row: (nearest[row], row))
    assert order_of_departure(most_redundant(), usage, bits.float(), 0.0).tolist() == expected


def test_most_redundant_in_blocks_is_the_same_as_at_once() -> None:
    keys = torch.randint(-3, 4, (1500, 6), generator=torch.Generator().manual_seed(1)).double()
    distance = torch.cdist(keys, keys).masked_fill(torch.ones(1500, 1500).tril().bool(), torch.inf)
    (score,) = most_redundant().score(fresh_usage(1500), keys, 0.0)
    torch.testing.assert_close(score, distance.amin(-1), rtol=0, atol=1e-12)


def fresh_usage(count: int) -> Usage:
    ids = torch.arange(count)
    return Usage(ids, ids.double(), ids.double(), torch.zeros_like(ids), torch.ones(count))


def test_reservoir_is_uniform_over_all_that_was_written() -> None:
    """Over many seeds every record survives equally often, and every pair too (chi-square, p > 0.001)."""
    count, keep, seeds = 12, 4, 1000
    survived = torch.zeros(seeds, count)
    for seed in range(seeds):
        survived[
            seed, order_of_departure(reservoir(seed), fresh_usage(count), torch.empty(count, 0), 0.0)[-keep:]
        ] = 1
    expected = seeds * keep / count
    # Inclusions are not independent: with without-replacement samples this statistic is chi-square
    # with count - 1 degrees of freedom after the factor (count - 1) / (count - keep).
    statistic = ((survived.sum(0) - expected) ** 2 / expected).sum() * (count - 1) / (count - keep)
    assert statistic < 31.3  # the 0.999 quantile of chi-square with 11 degrees of freedom
    together = (survived.T @ survived)[*torch.triu_indices(count, count, 1)] / seeds
    rate = keep * (keep - 1) / count / (count - 1)
    assert ((together - rate).abs() < 5 * (rate * (1 - rate) / seeds) ** 0.5).all()


def test_reservoir_is_the_same_sample_however_often_it_is_thinned() -> None:
    """Letting go one by one while writing keeps what letting go once at the end keeps."""
    held = torch.empty(0, dtype=torch.int64)
    for new in range(200):
        held = torch.cat([held, torch.tensor([new])])
        if len(held) > 10:
            usage = Usage(held, *[held.double()] * 2, held * 0, held.double())
            held = held[order_of_departure(reservoir(5), usage, torch.empty(11, 0), 0.0)[1:]]
    at_once = order_of_departure(reservoir(5), fresh_usage(200), torch.empty(200, 0), 0.0)[-10:]
    assert set(held.tolist()) == set(at_once.tolist())


def test_ids_beyond_the_precision_of_a_float_are_told_apart() -> None:
    ids = torch.tensor([2**60 + 1, 2**60, 2**60 + 2])
    usage = fresh_usage(3)._replace(ids=ids)
    assert order_of_departure(first_in_first_out(), usage, torch.empty(3, 0), 0.0).tolist() == [1, 0, 2]


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
def test_named_is_the_inverse_of_the_name_and_policies_can_be_pickled(policy: Policy) -> None:
    assert named(policy.name).name == policy.name
    usage, keys = fresh_usage(20), torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    expected = order_of_departure(policy, usage, keys, 30.0)
    for same in (named(policy.name), pickle.loads(pickle.dumps(policy))):
        assert torch.equal(order_of_departure(same, usage, keys, 30.0), expected)


@given(half_life=st.floats(min_value=0, exclude_min=True), seed=st.integers(-(2**63), 2**63 - 1))
def test_names_keep_every_digit_of_their_parameter(half_life: float, seed: int) -> None:
    assert named(decayed_strength(half_life).name).name == decayed_strength(half_life).name
    assert named(decayed_strength(half_life).name).score.keywords == {"half_life": half_life}
    assert named(reservoir(seed).name).score.keywords == reservoir(seed).score.keywords


def test_every_built_in_policy_has_a_name_in_the_list() -> None:
    assert [name.partition("(")[0] for name in POLICY_NAMES] == [
        policy.name.partition("(")[0] for policy in ALL
    ]
    assert named(" decayed_strength(3600) ").name == "decayed_strength(3600)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oldest", r"called 'oldest'; there are first_in_first_out, .*decayed_strength\(half_life\)"),
        ("", "there are first_in"),
        ("decayed_strength", "no retention policy is called 'decayed_strength'"),
        ("least_often_used(3)", "no retention policy is called"),
        ("least_often_used)", "no retention policy is called"),
        ("decayed_strength(-1)", r"'decayed_strength\(-1\)' is no decayed_strength\(half_life\): .* above 0"),
        ("decayed_strength(soon)", r"is no decayed_strength\(half_life\): could not convert"),
        ("reservoir(1.5)", r"is no reservoir\(seed\): invalid literal"),
    ],
)
def test_a_name_that_is_none_is_an_error_that_says_which_there_are(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named(name)


@pytest.mark.compiles
def test_every_policy_compiles_as_one_graph_for_a_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(-2, 3, (3, 11, 4), generator=generator).float()
    ids = torch.stack([torch.randperm(11, generator=generator) for _ in range(3)])
    times_read = torch.randint(0, 3, (3, 11), generator=generator)
    usage = Usage(
        ids, ids.float(), ids.float() + times_read, times_read, torch.rand(3, 11, generator=generator)
    )

    def orders(usage: Usage, keys: Tensor, now: Tensor) -> list[Tensor]:
        return [order_of_departure(policy, usage, keys, now) for policy in ALL]

    compiled = torch.compile(orders, fullgraph=True, backend="aot_eager")  # the C++ compiler takes a minute
    for one, other in zip(
        compiled(usage, keys, torch.tensor(15.0)), orders(usage, keys, torch.tensor(15.0)), strict=True
    ):
        assert torch.equal(one, other)
