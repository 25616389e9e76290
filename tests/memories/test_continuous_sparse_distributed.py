"""What only the continuous form of Kanerva's memory claims; the laws are in the suite."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from mnemos.memories import ContinuousSparseDistributed


@pytest.fixture
def memory() -> ContinuousSparseDistributed:
    torch.manual_seed(0)
    return ContinuousSparseDistributed(16, 3, locations=400, top_k=8)


def test_a_key_alone_answers_exactly_what_was_written(memory: ContinuousSparseDistributed) -> None:
    key, value = torch.randn(2, 1, 16), torch.randn(2, 1, 3)
    state = memory.write(memory.initial_state(2), key, value)
    torch.testing.assert_close(memory.read(state, 7 * key).values, value)
    twice = memory.write(state, key, value)
    torch.testing.assert_close(memory.read(twice, key).values, 2 * value)
    gone = memory.write(state, key, value, strength=-torch.ones(2, 1))
    torch.testing.assert_close(gone.counters, torch.zeros_like(gone.counters))
    nothing = memory.write(state, torch.zeros(2, 1, 16), value)
    assert torch.equal(nothing.counters, state.counters)


def test_the_answer_fades_as_the_query_leaves_the_key(memory: ContinuousSparseDistributed) -> None:
    key, away = torch.randn(2, 200, 1, 16).unbind(0)
    key = nn.functional.normalize(key, dim=-1)
    away = nn.functional.normalize(away - (away * key).sum(-1, keepdim=True) * key, dim=-1)
    state = memory.write(memory.initial_state(200), key, torch.ones(200, 1, 3))
    means = []
    for cosine in (1.0, 0.9, 0.7, 0.4, 0.0):
        query = cosine * key + (1 - cosine**2) ** 0.5 * away
        means.append(memory.read(state, query).values.mean().item())
    assert means[0] == pytest.approx(1, abs=1e-5)
    assert all(near > far for near, far in pairwise(means))
    assert means[-1] < 0.05


def test_a_reading_is_its_weights_times_the_counters(memory: ContinuousSparseDistributed) -> None:
    state = memory.write(memory.initial_state(2), torch.randn(2, 30, 16), torch.randn(2, 30, 3))
    values, weights, slots = memory.read(state, torch.randn(2, 7, 16))
    assert slots.shape == weights.shape == (2, 7, 8)
    assert (weights.diff(dim=-1) <= 0).all()
    found = torch.stack([row[where] for row, where in zip(state.counters, slots, strict=True)])
    torch.testing.assert_close((weights.unsqueeze(-1) * found).sum(2), values)


def test_many_random_pairs_are_told_apart() -> None:
    torch.manual_seed(1)
    memory = ContinuousSparseDistributed(64, 8, locations=2000, top_k=10)
    keys, values = torch.randn(1, 200, 64), torch.randn(1, 200, 8).sign()
    state = memory.write(memory.initial_state(1), keys, values)
    noisy = keys + 0.2 * torch.randn_like(keys)
    assert (memory.read(state, noisy).values.sign() == values).float().mean() > 0.97


def test_a_network_is_trained_through_it() -> None:
    """Keys come back turned by an unknown rotation: what is written must be asked for another way."""
    torch.manual_seed(2)
    memory = ContinuousSparseDistributed(8, 4, locations=60, top_k=6)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    query = nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.Adam([*memory.parameters(), *query.parameters()], lr=0.02)
    losses = []
    for _ in range(120):
        keys, values = torch.randn(32, 6, 8), torch.randn(32, 6, 4)
        state = memory.write(memory.initial_state(32), keys, values)
        loss = nn.functional.mse_loss(memory.read(state, query(keys @ turn)).values, values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("key_size", 0, "key_size must be at least 1, not 0"),
        ("value_size", 0, "value_size must be at least 1, not 0"),
        ("top_k", 0, "top_k must be at least 1, not 0"),
        ("chunk_size", 0, "chunk_size must be at least 1, not 0"),
        ("locations", 2, "locations must be more than top_k = 2, not 2"),
    ],
)
def test_sizes_are_checked(name: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContinuousSparseDistributed(**{"key_size": 3, "locations": 9, "top_k": 2, name: value})
