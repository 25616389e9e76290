"""What the family of fast weights claims beside the laws."""

import pytest
import torch

from mnemos.memories import GatedDelta, GatedDelta2, KimiDelta, LinearAttention
from mnemos.memories.fast_weights import dpfp, logistic, positive_sum

SIZES = {"heads": 2, "key_size": 8, "value_size": 3}


def test_linear_attention_is_attention_by_its_features() -> None:
    torch.manual_seed(0)
    memory = LinearAttention(6, **SIZES)
    inputs = torch.randn(2, 9, 6)
    outputs, _ = memory(inputs)
    queries, keys, values, _ = memory.project(inputs)
    queries, keys = (torch.nn.functional.elu(x.unflatten(-1, (2, 8))) + 1 for x in (queries, keys))
    scores = torch.einsum("bthk,bshk->bhts", queries, keys).tril(-1)  # read before it writes
    weights = scores / scores.sum(-1, keepdim=True).clamp_min(1e-6)
    read = torch.einsum("bhts,bshw->bthw", weights, values.unflatten(-1, (2, 3)))
    torch.testing.assert_close(outputs, memory.emit(read.flatten(2)))


def test_a_normalised_reading_is_its_weights_times_what_was_written() -> None:
    torch.manual_seed(0)
    memory = LinearAttention(6, **SIZES)
    keys, values = torch.randn(1, 5, 16), torch.randn(1, 1, 6).expand(1, 5, 6)
    state = memory.write(memory.initial_state(1), keys, values)
    reading = memory.read(state, torch.randn(1, 4, 16))
    torch.testing.assert_close(reading.values, values[:, :1].expand(1, 4, 6))  # an average of equals
    columns = torch.zeros(1, 6, 16)
    columns[:, :3, :8], columns[:, 3:, 8:] = state.weights[:, 0, :-1], state.weights[:, 1, :-1]
    torch.testing.assert_close(torch.einsum("bws,bts->btw", columns, reading.weights), reading.values)


def test_the_fast_weights_of_1992_are_sums_of_outer_products() -> None:
    torch.manual_seed(0)
    memory = LinearAttention(6, **SIZES, feature_map=logistic(), normalised=False)
    keys, values = torch.randn(1, 5, 16), torch.randn(1, 5, 6)
    state = memory.write(memory.initial_state(1), keys, values)
    expected = torch.einsum(
        "bthw,bthk->bhwk", values.unflatten(-1, (2, 3)), keys.unflatten(-1, (2, 8)).sigmoid()
    )
    torch.testing.assert_close(state.weights, expected)


def test_linear_attention_erases_nothing() -> None:
    memory = LinearAttention(6, **SIZES)
    with pytest.raises(ValueError, match="erased must be None"):
        memory.write(
            memory.initial_state(1), torch.ones(1, 1, 16), torch.ones(1, 1, 6), erased=torch.ones(1, 1, 2, 8)
        )


@pytest.mark.parametrize("kind", [GatedDelta, KimiDelta, GatedDelta2])
def test_what_is_not_written_decays_as_told(kind) -> None:
    torch.manual_seed(0)
    memory = kind(6, **SIZES)
    key, value = torch.randn(1, 1, 16), torch.randn(1, 1, 6)
    state = memory.write(memory.initial_state(1), key, value)
    idle, half = torch.zeros(1, 3), torch.full((1, 3, 2, 1), 0.5).log()
    later = memory.write(state, torch.randn(1, 3, 16), torch.randn(1, 3, 6), strength=idle, log_decay=half)
    torch.testing.assert_close(memory.read(later, key).values, value / 8)
    only_first = torch.stack([half[..., 0, :], torch.zeros(1, 3, 1)], dim=2)
    later = memory.write(
        state, key.expand(1, 3, 16), value.expand(1, 3, 6), strength=idle, log_decay=only_first
    )
    torch.testing.assert_close(memory.read(later, key).values, value * torch.tensor([1, 1, 1, 8, 8, 8]) / 8)


def test_channels_decay_one_by_one() -> None:
    memory = KimiDelta(6, key_size=4, value_size=2)
    torch.manual_seed(0)
    keys, values = torch.eye(4).unsqueeze(0), torch.randn(1, 4, 2)
    state = memory.write(memory.initial_state(1), keys, values)
    shares = torch.tensor([1.0, 0.5, 0.25, 1e-9])
    decay = shares.log().view(1, 1, 1, 4)
    state = memory.write(state, keys[:, :1], values[:, :1], strength=torch.zeros(1, 1), log_decay=decay)
    torch.testing.assert_close(memory.read(state, keys).values, values * shares.unsqueeze(1))


def test_erasing_and_writing_are_set_apart() -> None:
    torch.manual_seed(0)
    memory = GatedDelta2(6, key_size=4, value_size=2)
    key, values = torch.randn(1, 1, 4), torch.randn(1, 2, 1, 2)
    state = memory.write(memory.initial_state(1), key, values[:, 0])
    none, all_ = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    added = memory.write(state, key, values[:, 1], erased=none)
    torch.testing.assert_close(memory.read(added, key).values, values[:, 0] + values[:, 1])
    emptied = memory.write(state, key, values[:, 1], erased=all_, committed=none)
    torch.testing.assert_close(memory.read(emptied, key).values, torch.zeros(1, 1, 2))
    half = memory.write(state, key, values[:, 1], committed=torch.tensor([1.0, 0.0]).view(1, 1, 1, 2))
    torch.testing.assert_close(memory.read(half, key).values, values[:, 1] * torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize(("feature_map", "held"), [(positive_sum(), 4), (dpfp(1), 8), (dpfp(3), 12)])
def test_a_matrix_holds_as_many_keys_as_it_has_features(feature_map, held: int) -> None:
    """Twelve random keys of four channels: so many of them can be told apart."""
    torch.manual_seed(0)
    memory = LinearAttention(5, key_size=4, value_size=12, feature_map=feature_map, normalised=False)
    state = memory.write(memory.initial_state(1), torch.randn(1, 12, 4), torch.eye(12).unsqueeze(0))
    assert torch.linalg.matrix_rank(state.weights[0, 0], rtol=1e-4) == held


@pytest.mark.parametrize("kind", [GatedDelta, KimiDelta, GatedDelta2])
def test_forgetting_begins_slowly(kind) -> None:
    torch.manual_seed(0)
    memory = kind(16, **SIZES)
    decay = memory.gates(torch.randn(1, 64, 16))["log_decay"]
    assert decay.max() <= 0
    assert -5 < decay.median() < -0.005  # as Mamba begins: memories of one to a hundred steps
