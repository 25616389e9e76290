"""Estimators of the gradient through a choice, on stores so small that it can be enumerated."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mnemos.ops.retrieval import mix, reinforce, sample, soft_top_k, straight_through

INF = torch.inf


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A query, five keys and their values; the score of a key is its inner product with the query."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)
    keys = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    values = torch.randn(5, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    return query, keys, values


def loss_of(outputs: Tensor) -> Tensor:
    return (outputs - 1).pow(2).sum(-1) + outputs.sin().sum(-1)


def expected_loss(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Over every choice that the softmax can make: what REINFORCE estimates."""
    return ((keys @ query).softmax(-1) * loss_of(values)).sum()


@pytest.mark.parametrize("k", [1, 2, 4, 5, 9])
def test_soft_top_k_is_attention_over_the_chosen(k: int) -> None:
    query, keys, values = problem()
    chosen = torch.tensor(sorted(range(5), key=lambda slot: -(keys[slot] @ query).item())[:k])
    naive = loss_of((keys[chosen] @ query).softmax(-1) @ values[chosen])
    ours = loss_of(mix(soft_top_k(keys @ query, k), values))
    torch.testing.assert_close(ours, naive)
    for left, right in zip(
        gradients(ours, query, keys, values), gradients(naive, query, keys, values), strict=True
    ):
        torch.testing.assert_close(left, right)


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def test_soft_top_k_passes_gradcheck_with_batches() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(2, 3, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    values = torch.randn(2, 3, 6, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, v: mix(soft_top_k(s, 3), v), (scores, values))


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.sampled_from([-INF, -2.0, 0.0, 1.0, 30.0]), min_size=1, max_size=6),
    k=st.integers(1, 7),
)
def test_weights_are_a_distribution_over_at_most_k_found(scores: list[float], k: int) -> None:
    given_scores = torch.tensor(scores)
    found = int(given_scores.isfinite().sum())
    weights = soft_top_k(given_scores, k)
    assert int((weights > 1e-20).sum()) <= min(k, found)
    assert (weights[given_scores.isneginf()] == 0).all()
    torch.testing.assert_close(weights.sum(), torch.tensor(float(found > 0)))
    hard = straight_through(given_scores)
    assert hard.tolist() == [
        float(found > 0 and slot == scores.index(max(scores))) for slot in range(len(scores))
    ]


def test_one_of_one_and_the_limit_of_cold_scores_are_hard_choices() -> None:
    scores = torch.tensor([0.3, 0.1, 0.3, -1.0])
    one = torch.tensor([1.0, 0, 0, 0])
    assert torch.equal(soft_top_k(scores, 1), one)  # ties by position
    assert torch.equal(straight_through(scores), one)
    torch.testing.assert_close(soft_top_k(torch.tensor([0.3, 0.1, 0.29]) * 1e4, 3), torch.tensor([1.0, 0, 0]))
    with pytest.raises(ValueError, match="k must be at least 1, not 0"):
        soft_top_k(scores, 0)


def test_straight_through_is_the_best_forward_and_the_softmax_backward() -> None:
    query, keys, values = problem()
    outputs = mix(straight_through(keys @ query), values)
    best = int((keys @ query).argmax())
    assert torch.equal(outputs, values[best])
    upstream = torch.tensor([0.7, -1.3], dtype=torch.float64)
    hard = torch.autograd.grad(outputs, (query, keys), upstream)
    soft = torch.autograd.grad((keys @ query).softmax(-1) @ values, (query, keys), upstream)
    for left, right in zip(hard, soft, strict=True):
        torch.testing.assert_close(left, right)
    (to_values,) = torch.autograd.grad(mix(straight_through(keys @ query), values), values, upstream)
    assert torch.equal(to_values.any(-1).nonzero().flatten(), torch.tensor([best]))


def estimates(count: int, baseline: float) -> tuple[list[Tensor], list[Tensor]]:
    """`count` REINFORCE estimates of the gradient to query, keys and values, and the true ones."""
    query, keys, values = problem()
    batch = [leaf.detach().expand(count, *leaf.shape).requires_grad_() for leaf in (query, keys, values)]
    scores = (batch[1] @ batch[0].unsqueeze(-1)).squeeze(-1)
    weights, log_probability = sample(scores, torch.Generator().manual_seed(7))
    loss = reinforce(loss_of(mix(weights, batch[2])), log_probability, baseline)
    truth = gradients(expected_loss(query, keys, values), query, keys, values)
    return list(torch.autograd.grad(loss.sum(), batch)), truth


@pytest.mark.parametrize("baseline", [0.0, 3.0])
def test_reinforce_is_unbiased(baseline: float) -> None:
    """The mean of 40,000 estimates lies within 4.5 standard errors of the enumerated gradient."""
    for found, truth in zip(*estimates(40_000, baseline), strict=True):
        error = found.std(0) / found.shape[0] ** 0.5
        assert ((found.mean(0) - truth).abs() <= 4.5 * error + 1e-12).all()
        assert truth.abs().max() > 10 * error.max()  # and the truth is far from zero


def test_the_variance_is_the_enumerated_one_and_the_best_baseline_reduces_it() -> None:
    """Of the query's gradient g: E[(loss - b)² |g|²] - |E[loss g]|², least at b = E[loss |g|²] / E[|g|²]."""
    query, keys, values = problem()
    with torch.no_grad():
        probability = (keys @ query).softmax(-1)
        losses = loss_of(values)
        lengths = (keys - probability @ keys).pow(2).sum(-1)  # of the gradients of the log-probabilities
        best = ((probability * losses * lengths).sum() / (probability * lengths).sum()).item()
    (truth, *_) = gradients(expected_loss(query, keys, values), query)

    def enumerated(baseline: float) -> Tensor:
        return (probability * (losses - baseline) ** 2 * lengths).sum() - truth.pow(2).sum()

    for baseline in (best - 5, 0.0, best):
        to_query = estimates(20_000, baseline)[0][0]
        squares = (to_query - truth).pow(2).sum(-1)
        error = squares.std() / len(squares) ** 0.5
        assert (squares.mean() - enumerated(baseline)).abs() < 4.5 * error
        assert enumerated(best) <= enumerated(baseline)
    assert enumerated(best) < 0.8 * enumerated(best - 5)


def test_reinforce_has_the_value_of_the_loss_and_sampling_the_softmax_frequencies() -> None:
    scores = torch.tensor([0.0, 1.0, -INF, 2.0]).expand(20_000, 4).requires_grad_()
    weights, log_probability = sample(scores, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights.mean(0), scores[0].detach().softmax(-1), atol=0.015, rtol=0)
    torch.testing.assert_close(log_probability, (scores.softmax(-1) * weights).sum(-1).log())
    loss = torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(reinforce(loss, log_probability, 0.5), loss)
    assert not weights.requires_grad


@pytest.mark.parametrize("estimator", [lambda s: soft_top_k(s, 2), straight_through, lambda s: sample(s)[0]])
def test_what_was_not_found_leaves_everything_finite(estimator) -> None:
    scores = torch.tensor([[-INF, -INF], [1e4, -INF], [-1e4, 1e4]], requires_grad=True)
    values = torch.ones(3, 2, 1, requires_grad=True)
    outputs = mix(estimator(scores), values)
    torch.testing.assert_close(outputs, torch.tensor([[0.0], [1.0], [1.0]]))
    log_probability = sample(scores)[1]
    assert log_probability[0] == 0
    reinforce(outputs.squeeze(-1), log_probability).sum().backward()
    assert scores.grad.isfinite().all()
    assert values.grad.isfinite().all()


@pytest.mark.compiles
def test_the_estimators_compile_as_one_graph() -> None:
    scores = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    for estimator in (lambda s: soft_top_k(s, 2), straight_through):
        compiled = torch.compile(estimator, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(scores), estimator(scores))
