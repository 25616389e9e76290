"""What only `ContinuumMemory` claims; the laws that it shares with every memory are in the suite."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from mnemos.memories.continuum import ContinuumMemory, ContinuumState
from mnemos.ops.delta_rule import unit


def continuum(**options) -> ContinuumMemory:
    torch.manual_seed(0)
    memory = ContinuumMemory(5, 4, **{"heads": 2, "key_size": 3, "expansion": 2, **options})
    with torch.no_grad():
        for block in memory.blocks:
            for weight in block.weights:
                weight.add_(0.2 * torch.randn_like(weight))
        memory.rate.bias.fill_(-3.0)
    return memory


def by_autograd(memory: ContinuumMemory, inputs: torch.Tensor) -> torch.Tensor:
    """Equations 70 and 71 of the paper, gradients by autograd: what each query reads before its step."""
    with torch.no_grad():
        projected = memory.project(inputs)
    batch, time = inputs.shape[:2]
    reads = torch.zeros(batch, time, memory.heads, memory.key_size)
    for row in range(batch):
        for head in range(memory.heads):
            queries, keys, values = (x[row].unflatten(1, (memory.heads, -1))[:, head] for x in projected[:3])
            blocks = [[weight[head].detach() for weight in block.weights] for block in memory.blocks]
            sums = [[torch.zeros_like(weight) for weight in block] for block in blocks]
            for t in range(time):
                reads[row, t, head] = chain(blocks, unit(queries[t]))
                leaves = [[weight.clone().requires_grad_() for weight in block] for block in blocks]
                loss = (chain(leaves, unit(keys[t])) - values[t]).square().sum()
                slopes = torch.autograd.grad(loss, [weight for block in leaves for weight in block])
                for number, period in enumerate(memory.periods):
                    rate = projected.gates["rate"][row, t, head, number]
                    pair = slopes[2 * number : 2 * number + 2]
                    sums[number] = [s + rate * g for s, g in zip(sums[number], pair, strict=True)]
                    if (t + 1) % period == 0:
                        blocks[number] = [w - s for w, s in zip(blocks[number], sums[number], strict=True)]
                        sums[number] = [torch.zeros_like(s) for s in sums[number]]
    return memory.emit(reads.flatten(2))


def chain(blocks: list[list[torch.Tensor]], x: torch.Tensor) -> torch.Tensor:
    for first, second in blocks:
        x = x + functional.gelu(unit(x) @ first) @ second
    return x


def states_of(memory: ContinuumMemory, inputs: torch.Tensor) -> list[ContinuumState]:
    """After none of the steps, after the first, and so on."""
    states = [memory.initial_state(len(inputs))]
    for step in inputs.split(1, dim=1):
        states.append(memory(step, states[-1])[1])
    return states


@pytest.mark.parametrize("periods", [(1,), (4,), (2, 6), (3, 1, 2)])
def test_it_is_the_papers_rule_with_gradients_by_autograd(periods: tuple[int, ...]) -> None:
    """With a period of 1 and one block, it is the plain rule."""
    memory = continuum(periods=periods)
    inputs = torch.randn(2, 13, 5)
    torch.testing.assert_close(memory(inputs)[0], by_autograd(memory, inputs), atol=1e-5, rtol=1e-5)


def test_a_block_changes_at_the_end_of_its_period_and_never_else() -> None:
    periods = (2, 3, 6)
    memory = continuum(periods=periods)
    states = states_of(memory, torch.randn(1, 12, 5))
    for block, period in enumerate(periods):
        for step, (before, after) in enumerate(pairwise(states), start=1):
            changed = not torch.equal(before.changes[block][0], after.changes[block][0])
            assert changed == (step % period == 0)
            waits = after.pending[block][0].any().item()
            assert waits == (step % period != 0)
    assert states[-1].position.item() == 0


def test_a_new_chain_is_the_identity_on_its_keys() -> None:
    memory = ContinuumMemory(5, key_size=4, periods=(2, 4))
    queries = torch.randn(1, 3, 4)
    torch.testing.assert_close(memory.read(memory.initial_state(1), queries).values, unit(queries))


def test_masked_steps_are_no_steps_of_a_period() -> None:
    memory = continuum(periods=(2, 4))
    inputs = torch.randn(2, 7, 5)
    apart = torch.stack([torch.full_like(inputs, torch.nan), inputs], dim=2).flatten(1, 2)
    outputs, state = memory(apart, mask=torch.tensor([False, True]).repeat(7).expand(2, 14))
    expected, alone = memory(inputs)
    torch.testing.assert_close(outputs[:, 1::2], expected)
    torch.testing.assert_close(state.changes, alone.changes)
    assert state.position.tolist() == [3, 3]


def test_a_reset_begins_every_period_anew() -> None:
    memory = continuum(periods=(2, 4))
    inputs = torch.randn(1, 10, 5)
    reset = torch.arange(10).unsqueeze(0) == 5
    outputs, state = memory(inputs, reset=reset)
    expected, alone = memory(inputs[:, 5:])
    torch.testing.assert_close(outputs[:, 5:], expected)
    torch.testing.assert_close(state, alone)


def test_the_slow_keep_what_the_fast_have_given_up() -> None:
    """Pairs that were told at length are better known to a slow block after others than to a fast one."""
    keys, values = torch.nn.functional.normalize(torch.randn(2, 1, 8, 12), dim=-1)
    lost = []
    for periods in ((1,), (64,)):
        torch.manual_seed(1)
        memory = ContinuumMemory(5, key_size=12, periods=periods, expansion=4)
        state = memory.initial_state(1)
        rate = torch.full((1, 8, 1, 1), 0.4 / max(periods[0] // 8, 1))
        for _ in range(16):
            state = memory.write(state, keys, values, rate=rate)
        known = (memory.read(state, keys).values - values).square().sum().item()
        others = torch.nn.functional.normalize(torch.randn(2, 1, 8, 12), dim=-1)
        for _ in range(7):  # less than a slow block's period
            state = memory.write(state, *others, rate=rate)
        lost.append((memory.read(state, keys).values - values).square().sum().item() - known)
    assert lost[1] == pytest.approx(0)
    assert lost[0] > 0.1


def test_a_chain_learns_pairs_by_heart() -> None:
    memory = continuum(heads=1, key_size=8, expansion=4, periods=(8, 16))
    keys, values = torch.randn(1, 8, 8), torch.randn(1, 8, 8)
    state, errors = memory.initial_state(1), []
    for _ in range(60):
        state = memory.write(state, keys, values, rate=torch.full((1, 8, 1, 2), 0.03))
        errors.append((memory.read(state, keys).values - values).square().mean().item())
    assert errors[-1] < 0.1 * errors[0]


def test_the_slow_network_learns_through_what_the_memory_learns() -> None:
    """Gradients of gradients: the initial weights after several periods, by finite differences."""
    memory = continuum(periods=(2, 4)).double()
    inputs = torch.randn(1, 9, 5, dtype=torch.float64)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        given = {"blocks.0.weights.0": weight}
        return torch.func.functional_call(memory, given, inputs)[0].square().sum()

    weight = memory.blocks[0].weights[0].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, weight, fast_mode=True)


@pytest.mark.parametrize(
    ("periods", "message"), [((), "at least one block"), ((4, 0), r"periods\[1\] must be at least 1")]
)
def test_periods_that_are_none_are_refused(periods: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContinuumMemory(4, periods=periods)
