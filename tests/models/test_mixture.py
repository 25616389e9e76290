import pytest
import torch

from mnemos.models import Evidence, Mixture, fit_mixture, mixed_nats, perplexity
from mnemos.models.mixture import concatenate_evidence, memory_log_weights, mixture_weight


def some_evidence(tokens=200, k=8, nearest=1.0, agree=0.5, seed=0):
    """Random evidence: distances from `nearest` on, of which a share agrees."""
    generator = torch.Generator().manual_seed(seed)
    distances = nearest + torch.rand(tokens, k, generator=generator).sort(dim=1).values
    agrees = torch.rand(tokens, k, generator=generator) < agree
    return Evidence(3 + torch.rand(tokens, generator=generator), distances, agrees)


def test_the_sum_of_the_paper():
    evidence, temperature, weight = some_evidence(), 0.7, 0.3
    counts = (-(evidence.distances.double() ** 2) / temperature).exp()
    memory = (counts * evidence.agrees).sum(1) / counts.sum(1)
    expected = -(weight * memory + (1 - weight) * (-evidence.nats.double()).exp()).log()
    actual = mixed_nats(evidence, Mixture(temperature, weight)).double()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_shares_of_the_memory_sum_to_one():
    evidence = some_evidence(nearest=40.0)
    total = memory_log_weights(0.5, evidence.distances).exp().sum(1)
    torch.testing.assert_close(total, torch.ones(200))


def test_a_temperature_near_zero_leaves_the_nearest_and_a_high_one_all_alike():
    distances = torch.tensor([[1.0, 2.0, 3.0, torch.inf]])
    torch.testing.assert_close(memory_log_weights(1e-3, distances).exp(), torch.tensor([[1.0, 0, 0, 0]]))
    shares = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0]])
    torch.testing.assert_close(memory_log_weights(1e6, distances).exp(), shares, rtol=0, atol=1e-4)


def test_without_weight_the_model_is_unchanged_to_the_last_bit():
    evidence = some_evidence()
    assert torch.equal(mixed_nats(evidence, Mixture(1.0, 0.0)), evidence.nats)


@pytest.mark.parametrize("k", [0, 8])
def test_where_nothing_is_found_the_model_is_unchanged_to_the_last_bit(k):
    nats = torch.rand(5)
    nothing = Evidence(nats, torch.full((5, k), torch.inf), torch.zeros(5, k, dtype=torch.bool))
    for mixture in (Mixture(1.0, 0.5), Mixture(1.0, 0.5, distance=2.0)):
        assert torch.equal(mixed_nats(nothing, mixture), nats)
    assert fit_mixture([[nothing]]).weight == 0


def test_the_gate_falls_with_distance():
    distances = torch.tensor([[0.0], [5.0], [10.0], [torch.inf]])
    weight = mixture_weight(Mixture(1.0, 0.8, distance=5.0, softness=0.5), distances)
    torch.testing.assert_close(weight, torch.tensor([0.8, 0.4, 0.0, 0.0]), rtol=0, atol=1e-3)
    constant = mixture_weight(Mixture(1.0, 0.8), distances)
    torch.testing.assert_close(constant, torch.tensor([0.8, 0.8, 0.8, 0.0]))


def test_a_memory_that_is_always_wrong_is_not_trusted():
    assert fit_mixture([[some_evidence(agree=0.0)]]).weight == 0


def test_a_memory_that_is_mostly_right_is_trusted():
    evidence = some_evidence(agree=0.9)
    mixture = fit_mixture([[evidence]])
    assert perplexity(mixed_nats(evidence, mixture)) < 0.3 * perplexity(evidence.nats)


def test_what_the_memory_does_not_know_does_not_pay_for_what_it_knows():
    known = some_evidence(2000, nearest=1.0, agree=0.9)
    unknown = some_evidence(2000, nearest=6.0, agree=0.0, seed=1)
    mixture = fit_mixture([[known], [unknown]])
    assert perplexity(mixed_nats(known, mixture)) < 0.5 * perplexity(known.nats)
    assert perplexity(mixed_nats(unknown, mixture)) < 1.01 * perplexity(unknown.nats)


def test_texts_follow_each_other():
    first, second = some_evidence(5), some_evidence(7, seed=1)
    both = concatenate_evidence([first, second])
    assert torch.equal(both.nats, torch.cat([first.nats, second.nats]))
    with pytest.raises(ValueError, match="at least one text"):
        concatenate_evidence([])
    for groups in ([], [[]], [[first], []]):
        with pytest.raises(ValueError, match="at least one group"):
            fit_mixture(groups)


@pytest.mark.parametrize("wrong", [(0.0, 0.5), (1.0, -0.1), (1.0, 1.1), (1.0, 0.5, 1.0, 0.0)], ids=str)
def test_a_mixture_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Mixture(*wrong)


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices():
    assert perplexity(torch.full((9,), 32.0).log()) == pytest.approx(32)


def test_a_domain_whose_documents_disagree_is_not_paid_for_by_another():
    """In one domain the memory is always right; in the other it saves in a long document alone."""

    def said(tokens, right, nats):
        generator = torch.Generator().manual_seed(tokens)
        agrees = torch.full((tokens, 4), right)
        return Evidence(torch.full((tokens,), nats), torch.rand(tokens, 4, generator=generator), agrees)

    known = [said(300, True, 4.0), said(200, True, 4.0)]
    mixed = [said(210, True, 1.0), said(40, False, 1.0), said(41, False, 1.0), said(42, False, 1.0)]
    trusting, careful = fit_mixture([known]), fit_mixture([known, mixed])
    assert trusting.weight > 0.9
    together = concatenate_evidence(mixed)
    assert mixed_nats(together, Mixture(1.0, 0.3)).sum() < together.nats.sum()  # but by one document
    assert careful.weight == 0
