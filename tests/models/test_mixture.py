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
    assert fit_mixture([nothing]).weight == 0


def test_the_gate_falls_with_distance():
    distances = torch.tensor([[0.0], [5.0], [10.0], [torch.inf]])
    weight = mixture_weight(Mixture(1.0, 0.8, distance=5.0, softness=0.5), distances)
    torch.testing.assert_close(weight, torch.tensor([0.8, 0.4, 0.0, 0.0]), rtol=0, atol=1e-3)
    constant = mixture_weight(Mixture(1.0, 0.8), distances)
    torch.testing.assert_close(constant, torch.tensor([0.8, 0.8, 0.8, 0.0]))


def test_a_memory_that_is_always_wrong_is_not_trusted():
    assert fit_mixture([some_evidence(agree=0.0)]).weight == 0


def test_a_memory_that_is_mostly_right_is_trusted():
    evidence = some_evidence(agree=0.9)
    mixture = fit_mixture([evidence])
    assert perplexity(mixed_nats(evidence, mixture)) < 0.3 * perplexity(evidence.nats)


def test_what_the_memory_does_not_know_does_not_pay_for_what_it_knows():
    known = some_evidence(2000, nearest=1.0, agree=0.9)
    unknown = some_evidence(2000, nearest=6.0, agree=0.0, seed=1)
    mixture = fit_mixture([known, unknown])
    assert perplexity(mixed_nats(known, mixture)) < 0.5 * perplexity(known.nats)
    assert perplexity(mixed_nats(unknown, mixture)) < 1.01 * perplexity(unknown.nats)


def test_the_cautious_one_of_two_mixtures_that_do_as_well_is_taken():
    evidence = some_evidence(50, agree=0.05)
    best = min(
        (Mixture(t, w) for t in (0.1, 0.5, 2.0, 8.0) for w in (0.1, 0.2, 0.4, 0.6)),
        key=lambda mixture: perplexity(mixed_nats(evidence, mixture)),
    )
    chosen = fit_mixture([evidence])
    trust = mixture_weight(chosen, evidence.distances).mean()
    assert trust <= mixture_weight(best, evidence.distances).mean()


def test_texts_follow_each_other():
    first, second = some_evidence(5), some_evidence(7, seed=1)
    both = concatenate_evidence([first, second])
    assert torch.equal(both.nats, torch.cat([first.nats, second.nats]))
    with pytest.raises(ValueError, match="at least one text"):
        concatenate_evidence([])
    with pytest.raises(ValueError, match="at least one validation text"):
        fit_mixture([])


@pytest.mark.parametrize("wrong", [(0.0, 0.5), (1.0, -0.1), (1.0, 1.1), (1.0, 0.5, 1.0, 0.0)], ids=str)
def test_a_mixture_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        Mixture(*wrong)


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices():
    assert perplexity(torch.full((9,), 32.0).log()) == pytest.approx(32)


def test_no_document_that_is_guarded_pays_for_the_others():
    """The memory is right about most of one text and wrong about a short document of the other."""
    generator = torch.Generator().manual_seed(0)
    right = Evidence(
        torch.full((400,), 4.0), torch.rand(400, 4, generator=generator), torch.ones(400, 4).bool()
    )
    wrong = Evidence(
        torch.full((40,), 1.0), torch.rand(40, 4, generator=generator), torch.zeros(40, 4).bool()
    )
    trusting, careful = fit_mixture([right]), fit_mixture([right], unharmed=[right, wrong])
    assert mixed_nats(wrong, trusting).sum() > wrong.nats.sum()
    assert mixed_nats(wrong, careful).sum() <= wrong.nats.sum()
