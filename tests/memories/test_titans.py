"""What only `Titans` claims; the laws that it shares with every memory are in the suite."""

import copy

import pytest
import torch
from torch.nn import functional

import mnemos
from mnemos.memories.titans import Titans
from mnemos.ops.delta_rule import delta_rule_loop, unit


def titans(**options) -> Titans:
    torch.manual_seed(0)
    memory = Titans(6, 4, **{"heads": 2, "key_size": 5, "value_size": 3, "chunk_size": 1, **options})
    with torch.no_grad():
        for weight in memory.network.weights:
            weight.add_(0.3 * torch.randn_like(weight))
    return memory


def by_autograd(memory: Titans, inputs: torch.Tensor) -> torch.Tensor:
    """Equations 8 to 13 of the paper, gradients by autograd: what each query reads before its step."""
    projected = memory.project(inputs)
    batch, time = inputs.shape[:2]
    reads = torch.zeros(batch, time, memory.heads, memory.value_size, dtype=inputs.dtype)
    for row in range(batch):
        for head in range(memory.heads):
            weights = [weight[head].detach() for weight in memory.network.weights]
            momenta = [torch.zeros_like(weight) for weight in weights]
            for t in range(time):
                query, key, value = (x[row, t].unflatten(0, (memory.heads, -1))[head] for x in projected[:3])
                if t % memory.chunk_size == 0:
                    start = [weight.clone().requires_grad_() for weight in weights]
                reads[row, t, head] = answer(weights, unit(query))
                loss = (answer(start, unit(key)) - value).square().sum()
                slopes = torch.autograd.grad(loss, start)
                rate, decay, momentum = (
                    projected.gates[name][row, t, head] for name in ("rate", "decay", "momentum")
                )
                momenta = [momentum * s - rate * g for s, g in zip(momenta, slopes, strict=True)]
                weights = [(1 - decay) * w + s for w, s in zip(weights, momenta, strict=True)]
    return memory.emit(reads.flatten(2))


def answer(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for number, weight in enumerate(weights):
        x = (functional.gelu(x) if number else x) @ weight
    return x


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_it_is_the_papers_loop_with_gradients_by_autograd(depth: int, chunk_size: int) -> None:
    memory = titans(depth=depth, chunk_size=chunk_size).double()
    inputs = torch.randn(2, 10, 6, dtype=torch.float64)
    with torch.no_grad():
        projected, read = memory.project(inputs), memory(inputs)[0]
    assert projected.gates.keys() == {"rate", "decay", "momentum"}
    torch.testing.assert_close(read, by_autograd(memory, inputs).detach(), atol=1e-10, rtol=1e-10)


def test_a_matrix_without_momentum_is_the_gated_delta_rule_with_twice_the_rate() -> None:
    memory = titans(depth=1, momentum=False)
    with torch.no_grad():
        memory.network.weights[0].zero_()
    inputs = torch.randn(2, 12, 6)
    queries, keys, values, gates = memory.project(inputs)
    queries, keys = (unit(x.unflatten(2, (2, -1))) for x in (queries, keys))
    rate, kept = 2 * gates["rate"].unsqueeze(-1), 1 - gates["decay"].unsqueeze(-1)
    # The delta rule corrects what is left after the decay, Titans what was there before it.
    expected, weights = delta_rule_loop(
        queries,
        keys,
        rate * values.unflatten(2, (2, -1)),
        rate / kept * keys,
        torch.zeros(2, 2, 3, 5),
        log_decay=kept.log(),
        read_first=True,
    )
    outputs, state = memory(inputs)
    torch.testing.assert_close(outputs, memory.emit(expected.flatten(2)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.changes[0].mT, weights, atol=1e-5, rtol=1e-5)


def test_a_matrix_takes_over_a_value_with_the_rate_that_is_given_by_itself() -> None:
    memory = titans(depth=1)
    keys, values = torch.randn(2, 3, 10), torch.randn(2, 3, 6)
    state = memory.write(memory(torch.randn(2, 7, 6))[1], keys[:, :1], values[:, :1])
    state = state._replace(momenta=tuple(torch.zeros_like(s) for s in state.momenta))
    for t in range(3):
        state = memory.write(state, keys[:, t : t + 1], values[:, t : t + 1])
        torch.testing.assert_close(memory.read(state, keys[:, t : t + 1]).values, values[:, t : t + 1])


def test_full_decay_clears_the_memory_of_all_even_of_what_it_began_with() -> None:
    memory = titans(chunk_size=4)
    _, state = memory(torch.randn(2, 9, 6))
    keys, none = torch.randn(2, 1, 10), torch.zeros(2, 1)
    state = memory.write(state, keys, torch.randn(2, 1, 6), rate=none, decay=none + 1, momentum=none)
    assert not memory.read(state, keys).values.any()
    assert memory.read(memory.initial_state(2), keys).values.any()


def test_a_deep_memory_learns_pairs_by_heart() -> None:
    memory = titans(heads=1, key_size=16, value_size=4, expansion=4, chunk_size=8)
    keys, values = torch.randn(1, 8, 16), torch.randn(1, 8, 4)
    state, errors = memory.initial_state(1), []
    for _ in range(40):
        state = memory.write(
            state, keys, values, rate=torch.full((1, 8), 0.1), momentum=torch.full((1, 8), 0.3)
        )
        errors.append((memory.read(state, keys).values - values).square().mean().item())
    assert errors[-1] < 0.1 * errors[0]


def test_masked_steps_change_nothing_even_a_whole_chunk_of_them() -> None:
    """titans-pytorch 0.5.5 decays at masked steps: 16 of them change its later answers by a fifth."""
    memory = titans(chunk_size=16)
    inputs = torch.randn(2, 40, 6)
    padded = torch.cat([torch.randn(2, 16, 6), inputs], dim=1)
    mask = torch.arange(56).expand(2, 56) >= 16
    outputs, state = memory(padded, mask=mask)
    expected, alone = memory(inputs)
    torch.testing.assert_close(outputs[:, 16:], expected)
    torch.testing.assert_close(state.changes, alone.changes)


def test_any_split_gives_the_same_at_pieces_that_no_chunk_ends_with() -> None:
    """titans-pytorch 0.5.5 refuses pieces of 8 or 24 steps in chunks of 16."""
    memory = titans(chunk_size=16)
    torch.nn.init.constant_(memory.gates["rate"].bias, -5.0)  # for keys of 5 numbers
    inputs = torch.randn(2, 72, 6)
    expected, _ = memory(inputs)
    for piece in (8, 24, 1):
        state, outputs = None, []
        for part in inputs.split(piece, dim=1):
            output, state = memory(part, state)
            outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs, dim=1), expected, atol=1e-5, rtol=1e-5)


def test_the_state_has_one_size_and_goes_into_a_file_that_holds_no_program(tmp_path) -> None:
    """titans-pytorch 0.5.5 returns the weights of every chunk: 34 MB after 4,096 steps of 64 numbers, which
    `torch.load` refuses to open."""
    memory = titans(chunk_size=16)
    with torch.no_grad():
        states = [memory(torch.randn(1, time, 6))[1] for time in (1, 256, 4096)]
    assert len({mnemos.nbytes(state) for state in states}) == 1
    mnemos.save(tmp_path / "state.memory", memory, states[-1])
    again = mnemos.load(tmp_path / "state.memory", memory)
    assert all(torch.equal(a, b) for a, b in zip(again.changes, states[-1].changes, strict=True))


def test_the_slow_network_learns_through_what_the_memory_learns() -> None:
    """Gradients of gradients: the initial weights after a whole chunk, by finite differences."""
    memory = titans(chunk_size=3).double()
    inputs = torch.randn(1, 7, 6, dtype=torch.float64)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(memory, {"network.weights.0": weight}, inputs)[0].square().sum()

    weight = memory.network.weights[0].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, weight, fast_mode=True)


def test_long_surprises_are_cut_and_ordinary_ones_are_not() -> None:
    memory = titans(chunk_size=4)
    free, tight = copy.deepcopy(memory), copy.deepcopy(memory)
    free.largest_surprise, tight.largest_surprise = 1e9, 1e-3
    inputs = torch.randn(2, 12, 6)
    torch.testing.assert_close(memory(inputs)[0], free(inputs)[0])
    _, state = tight(inputs)
    assert all(s.norm(dim=(2, 3)).max() < 1e-2 for s in state.momenta)


def test_a_memory_without_momentum_refuses_one() -> None:
    memory = titans(momentum=False)
    with pytest.raises(ValueError, match="momentum must be None"):
        memory.write(
            memory.initial_state(1), torch.randn(1, 1, 10), torch.randn(1, 1, 6), momentum=torch.ones(1, 1)
        )
