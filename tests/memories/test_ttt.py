"""What only the test-time training layers claim; the laws are in the suite."""

import pytest
import torch
from torch.nn import functional

from mnemos.memories.ttt import TTTMLP, TTTLinear


def layer(kind: type[TTTLinear] | type[TTTMLP], **options) -> TTTLinear | TTTMLP:
    torch.manual_seed(0)
    memory = kind(6, **{"heads": 2, "key_size": 4, "chunk_size": 4, **options})
    with torch.no_grad():
        for parameter in memory.network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return memory


def by_autograd(memory: TTTLinear | TTTMLP, inputs: torch.Tensor) -> torch.Tensor:
    """Section 2.4 of the paper with gradients by autograd: what each query reads before its step."""
    projected = memory.project(inputs)
    network = memory.network
    reads = torch.zeros(*inputs.shape[:2], memory.heads, memory.key_size)
    for row in range(len(inputs)):
        for head in range(memory.heads):

            def f(weights: list[torch.Tensor], x: torch.Tensor, head: int = head) -> torch.Tensor:
                z = x
                for number, weight in enumerate(weights):
                    z = (functional.gelu(z) if number else z) @ weight[:-1] + weight[-1]
                scale, shift = network.scale[head, 0], network.shift[head, 0]
                return x + functional.layer_norm(z, z.shape[-1:], scale, shift)

            weights = [weight[head].detach() for weight in network.weights]
            for t in range(inputs.shape[1]):
                query, key, value = (x[row, t].unflatten(0, (memory.heads, -1))[head] for x in projected[:3])
                if t % memory.chunk_size == 0:
                    start = [weight.clone().requires_grad_() for weight in weights]
                reads[row, t, head] = f(weights, query)
                slopes = torch.autograd.grad((f(start, key) - value).square().sum(), start)
                rate = projected.gates["rate"][row, t, head]
                weights = [w - rate * g for w, g in zip(weights, slopes, strict=True)]
    return memory.emit(reads.flatten(2))


@pytest.mark.parametrize("kind", [TTTLinear, TTTMLP])
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_it_is_the_papers_loop_with_gradients_by_autograd(kind, chunk_size: int) -> None:
    memory = layer(kind, chunk_size=chunk_size)
    inputs = torch.randn(2, 10, 6)
    expected = by_autograd(memory, inputs).detach()
    torch.testing.assert_close(memory(inputs)[0].detach(), expected, atol=1e-5, rtol=1e-5)


def test_one_step_of_a_bare_matrix_from_zero_is_linear_attention() -> None:
    """Theorem 1: W_0 = 0, η = 1/2 and the whole sequence as one batch."""
    memory = layer(TTTLinear, heads=1, chunk_size=99, residual=False)
    with torch.no_grad():
        memory.network.weights[0].zero_()
    keys, values, queries = torch.randn(3, 2, 20, 4)
    state = memory.write(memory.initial_state(2), keys, values, rate=torch.full((2, 20), 0.5))
    # The bias is a key that is always 1.
    attention = torch.einsum("bqk,btk->bqt", queries, keys) + 1
    torch.testing.assert_close(memory.read(state, queries).values, attention @ values, atol=1e-4, rtol=1e-4)


def test_the_loss_of_what_it_saw_falls_while_it_reads() -> None:
    memory = layer(TTTLinear, heads=1, base_rate=1.0)
    inputs = torch.randn(1, 1, 6).expand(1, 60, 6)
    _, keys, values, gates = memory.project(inputs)
    errors, state = [], memory.initial_state(1)
    for t in range(60):
        errors.append((memory.read(state, keys[:, :1]).values - values[:, :1]).square().sum().item())
        rate = gates["rate"][:, t : t + 1]
        state = memory.write(state, keys[:, t : t + 1], values[:, t : t + 1], rate=rate)
    assert errors[-1] < 0.5 * errors[0]


def test_it_has_no_momentum() -> None:
    memory = layer(TTTMLP)
    assert memory.initial_state(1).momenta == ()
    with pytest.raises(ValueError, match="TTTMLP has none"):
        memory.write(
            memory.initial_state(1), torch.randn(1, 1, 8), torch.randn(1, 1, 8), momentum=torch.ones(1, 1)
        )
