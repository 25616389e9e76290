"""What only `Atlas` claims; the laws that it shares with every memory are in the suite."""

import pytest
import torch
from torch.nn import functional

from mnemos.memories.atlas import Atlas
from mnemos.memories.titans import Titans
from mnemos.ops.delta_rule import unit
from mnemos.ops.newton_schulz import orthogonalised


def atlas(**options) -> Atlas:
    torch.manual_seed(0)
    given = {"heads": 2, "key_size": 3, "value_size": 3, "expansion": 2, "chunk_size": 4, "window": 3}
    memory = Atlas(5, 4, **{**given, **options})
    with torch.no_grad():
        for weight in memory.network.weights:
            weight.add_(0.3 * torch.randn_like(weight))
    return memory


def plain_matrix(**options) -> Atlas:
    """A matrix of zeros, addressed by the keys themselves."""
    memory = atlas(**{"depth": 1, "degree": 1, "heads": 1, "chunk_size": 1, **options})
    with torch.no_grad():
        memory.features.roots.copy_(torch.tensor([0.0, 1.0]))
        memory.network.weights[0].zero_()
    return memory


def bare(**options) -> Atlas:
    """A matrix of zeros without Newton-Schulz, one step to a chunk."""
    memory = atlas(**{"depth": 1, "heads": 1, "chunk_size": 1, "newton_schulz_steps": 0, **options})
    with torch.no_grad():
        memory.network.weights[0].zero_()
    return memory


def by_autograd(memory: Atlas, inputs: torch.Tensor) -> torch.Tensor:
    """Equations 9, 32 and 33 of the paper, gradients by autograd: what each query reads before its step."""
    with torch.no_grad():
        projected = memory.project(inputs)
    batch, time = inputs.shape[:2]
    reads = torch.zeros(batch, time, memory.heads, memory.value_size)
    for row in range(batch):
        for head in range(memory.heads):
            queries, keys, values = (x[row].unflatten(1, (memory.heads, -1))[:, head] for x in projected[:3])
            queries, keys = (memory.features(unit(x)).detach() for x in (queries, keys))
            weights = [weight[head].detach() for weight in memory.network.weights]
            momenta = [torch.zeros_like(weight) for weight in weights]
            for t in range(time):
                if t % memory.chunk_size == 0:
                    start = [weight.clone().requires_grad_() for weight in weights]
                reads[row, t, head] = answer(weights, queries[t])
                rate, decay, momentum, relevance = (gate[row, t, head] for gate in projected.gates.values())
                first = max(0, t - memory.window + 1)
                loss = sum(
                    relevance[t - i] * (answer(start, keys[i]) - values[i]).square().sum()
                    for i in range(first, t + 1)
                )
                slopes = torch.autograd.grad(loss, start)
                if memory.newton_schulz_steps:
                    momenta = [momentum * s - g for s, g in zip(momenta, slopes, strict=True)]
                    learned = [rate * orthogonalised(s, memory.newton_schulz_steps) for s in momenta]
                else:
                    momenta = [momentum * s - rate * g for s, g in zip(momenta, slopes, strict=True)]
                    learned = momenta
                weights = [(1 - decay) * w + new for w, new in zip(weights, learned, strict=True)]
    return memory.emit(reads.flatten(2))


def answer(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for number, weight in enumerate(weights):
        x = (functional.gelu(x) if number else x) @ weight
    return x


@pytest.mark.parametrize("newton_schulz_steps", [0, 5])
@pytest.mark.parametrize(("chunk_size", "window", "degree"), [(1, 4, 2), (4, 3, 1), (3, 7, 2)])
def test_it_is_the_papers_loop_with_gradients_by_autograd(
    chunk_size: int, window: int, degree: int, newton_schulz_steps: int
) -> None:
    memory = atlas(
        chunk_size=chunk_size, window=window, degree=degree, newton_schulz_steps=newton_schulz_steps
    )
    inputs = torch.randn(2, 10, 5)
    assert list(memory.project(inputs).gates) == ["rate", "decay", "momentum", "relevance"]
    read, expected = memory(inputs)[0], by_autograd(memory, inputs)
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", [1, 2])
def test_one_step_in_the_window_and_no_more_is_titans(depth: int) -> None:
    memory = atlas(depth=depth, window=1, degree=1, newton_schulz_steps=0)
    titans = Titans(5, 4, heads=2, key_size=3, value_size=3, depth=depth, expansion=2, chunk_size=4)
    with torch.no_grad():
        memory.features.roots.copy_(torch.tensor([0.0, 1.0]))  # the keys, and no constant
        memory.gates["relevance"].bias.fill_(1e4)
        for name, parameter in titans.named_parameters():
            if not name.startswith("network"):
                parameter.copy_(memory.get_parameter(name))
        first, *others = memory.network.weights
        for ours, theirs in zip([first[:, 1:], *others], titans.network.weights, strict=True):
            theirs.copy_(ours)
    inputs = torch.randn(2, 11, 5)
    outputs, state = memory(inputs)
    expected, _ = titans(inputs)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
    assert state.keys.shape == (2, 2, 0, 3)


def test_a_pair_is_learned_as_often_as_it_is_in_the_window() -> None:
    """With keys at right angles, every step in whose window a pair is takes the same share of its error."""
    memory = plain_matrix(key_size=6, window=3, newton_schulz_steps=0)
    keys, values = torch.eye(6).unsqueeze(0), torch.randn(1, 6, 3)
    state = memory.write(memory.initial_state(1), keys, values, rate=torch.full((1, 6), 0.1))
    times = torch.tensor([3, 3, 3, 3, 2, 1])  # 0.1 times the slope of the square, 2
    share = 1 - 0.8 ** times.float().view(1, 6, 1)
    torch.testing.assert_close(memory.read(state, keys).values, share * values)
    relevance = torch.tensor([0.5, 0.0, 1.0]).expand(1, 6, 1, 3)
    state = memory.write(
        memory.initial_state(1), keys, values, rate=torch.full((1, 6), 0.1), relevance=relevance
    )
    share = 1 - 0.9 * torch.tensor([0.8, 0.8, 0.8, 0.8, 1.0, 1.0]).view(1, 6, 1)
    torch.testing.assert_close(memory.read(state, keys).values, share * values)


@pytest.mark.parametrize("degree", [1, 3])
def test_without_newton_schulz_a_pair_is_taken_over_whatever_the_length_of_its_features(degree: int) -> None:
    memory = bare(degree=degree, window=1)
    keys, values = torch.randn(1, 1, 3), torch.randn(1, 1, 3)
    state = memory.write(memory.initial_state(1), keys, values)
    torch.testing.assert_close(memory.read(state, keys).values, values)


@pytest.mark.parametrize("window", [1, 8])
def test_pairs_told_without_a_rate_bring_the_answers_nearer(window: int) -> None:
    memory = bare(degree=2, window=window)
    keys, values = torch.randn(4, 8, 3), torch.randn(4, 8, 3)
    mask = torch.ones(4, 8, dtype=torch.bool)
    mask[:, 5] = False
    state = memory.write(memory.initial_state(4), keys, values, mask=mask)
    padded = torch.where(mask.unsqueeze(-1), keys, torch.nan)
    again = memory.write(memory.initial_state(4), padded, values, mask=mask)
    error = (memory.read(state, keys).values - values)[mask]
    assert error.square().sum() < 0.8 * values[mask].square().sum()
    assert torch.equal(memory.read(again, keys).values, memory.read(state, keys).values)


def test_with_newton_schulz_a_step_goes_equally_far_in_all_directions_whatever_the_error() -> None:
    memory = plain_matrix(window=4, chunk_size=4)
    keys, values = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    rate, none = torch.full((1, 4), 0.1), torch.zeros(1, 4)
    rate[:, :3] = 0  # what was told before only shapes the last step
    changes = []
    for size in (0.1, 10.0):
        state = memory.write(memory.initial_state(1), keys, size * values, rate=rate, momentum=none)
        changes.append(state.changes[0][0, 0, 1:])
    torch.testing.assert_close(*changes, atol=1e-5, rtol=1e-4)
    strengths = torch.linalg.svdvals(changes[0])
    assert strengths.min() > 0.065
    assert strengths.max() < 0.125


def test_it_learns_pairs_by_heart_and_settles() -> None:
    memory = atlas(heads=1, key_size=8, value_size=4, expansion=4, chunk_size=8, window=8)
    keys, values = torch.randn(1, 8, 8), torch.randn(1, 8, 4)
    state, errors = memory.initial_state(1), []
    for number in range(40):
        rate, momentum = torch.full((1, 8), 0.05 / (1 + number)), torch.full((1, 8), 0.5)
        state = memory.write(state, keys, values, rate=rate, momentum=momentum)
        errors.append((memory.read(state, keys).values - values).square().mean().item())
    assert errors[-1] < 0.1 * errors[0]


def test_masked_steps_take_no_place_in_the_window() -> None:
    memory = atlas(window=4)
    inputs = torch.randn(2, 9, 5)
    apart = torch.stack([inputs, torch.randn_like(inputs)], dim=2).flatten(1, 2)
    outputs, state = memory(apart, mask=torch.tensor([True, False]).repeat(9).expand(2, 18))
    expected, alone = memory(inputs)
    torch.testing.assert_close(outputs[:, ::2], expected)
    torch.testing.assert_close(state.changes, alone.changes)


def test_the_slow_network_learns_through_what_the_memory_learns() -> None:
    """Gradients of gradients and of Newton-Schulz: the initial weights, by finite differences."""
    memory = atlas(chunk_size=3, degree=1).double()
    inputs = torch.randn(1, 7, 5, dtype=torch.float64)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(memory, {"network.weights.0": weight}, inputs)[0].square().sum()

    weight = memory.network.weights[0].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, weight, fast_mode=True)


def test_fewer_than_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="newton_schulz_steps must be at least 0, not -1"):
        Atlas(4, newton_schulz_steps=-1)
