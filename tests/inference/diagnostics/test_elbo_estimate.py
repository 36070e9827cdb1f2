import pytest
import torch

from zoo.inference.diagnostics import PosteriorSamples, elbo_estimate, sample_posterior

Z = 4.9  # of a false alarm of 1e-6


def weighed(log_weights):
    log_p = torch.as_tensor(log_weights)
    return PosteriorSamples({}, log_p, torch.zeros_like(log_p), {}, {}, False)


def test_elbo_is_log_evidence_minus_kl_divergence(normals):
    found = elbo_estimate(sample_posterior(normals.model, normals.guide, num_samples=20_000))
    assert abs(found.value - normals.elbo) < Z * found.standard_error
    assert found.standard_error < 0.02


def test_elbo_of_another_guide_is_distinguished(normals):
    found = elbo_estimate(sample_posterior(normals.model, normals.guide, num_samples=20_000))
    assert abs(found.value - normals.log_evidence) > Z * found.standard_error
    assert abs(found.value - normals._replace(sd=0.7).elbo) > Z * found.standard_error


def test_standard_error_is_that_of_repeated_estimates(normals):
    found = [elbo_estimate(sample_posterior(normals.model, normals.guide, num_samples=100)) for _ in range(200)]
    spread = torch.tensor([each.value for each in found]).std().item()
    told = torch.tensor([each.standard_error for each in found]).mean().item()
    assert spread == pytest.approx(told, rel=0.3)


def test_elbo_estimate_is_printed_with_standard_error():
    assert str(elbo_estimate(weighed([-1.0, -3.0]))) == "ELBO -2.000 ± 1 nats (standard error over 2 fresh draws)"


@pytest.mark.parametrize("wrong", [torch.nan, -torch.inf])
def test_nonfinite_weight_raises_with_index(wrong):
    with pytest.raises(FloatingPointError, match=r"^1 of 3 draws .* in draw 1 log p is (nan|-inf) and log q is 0"):
        elbo_estimate(weighed([0.0, wrong, 1.0]))


def test_single_sample_raises():
    with pytest.raises(ValueError, match=r"at least 2 draws, got 1$"):
        elbo_estimate(weighed([0.0]))
