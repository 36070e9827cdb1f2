"""Log-probabilities, and their score and pathwise parts."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from scipy import stats
from torch.distributions.transforms import AffineTransform

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._densities import draw_value, guide_density, log_density

LOGITS = torch.tensor([[-2.0, 0.0, 1.5], [0.3, -0.7, 4.0]], dtype=torch.float64)


def bits(logits=LOGITS):
    return dist.Bernoulli(logits=logits).to_event(1)


def test_bernoulli_samples_have_their_probability():
    """Counts are binomial; false-positive rate 1e-6, and an error of 0.02 is detected with probability above 0.99."""
    torch.manual_seed(0)
    count = 40_000
    ones = draw_value(bits(LOGITS.expand(count, 2, 3))).sum(0)
    for found, probability in zip(ones.flatten().tolist(), LOGITS.sigmoid().flatten().tolist(), strict=True):
        low, high = stats.binom.interval(1 - 1e-6 / 6, count, probability)
        assert low <= found <= high
        low, high = stats.binom.interval(1 - 1e-6 / 6, count, min(probability + 0.02, 1))
        assert not low <= found <= high


@pytest.mark.parametrize(
    "distribution",
    [bits(), dist.Bernoulli(LOGITS.sigmoid()).to_event(1), dist.Normal(LOGITS, 1.0).to_event(1), dist.Poisson(2.0)],
    ids=["bits", "bits by probability", "normal", "poisson"],
)
def test_log_density_equals_that_of_pyro(distribution):
    torch.manual_seed(0)
    value = distribution.sample()
    torch.testing.assert_close(log_density(distribution, value), distribution.log_prob(value))


def test_values_that_are_not_binary_raise_unless_just_sampled():
    half = torch.full((2, 3), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="within the support"):
        log_density(bits(), half)
    assert log_density(bits(), half, drawn=True).isfinite().all()


def test_pathwise_density_has_no_score():
    density = guide_density(dist.Normal(LOGITS, 1.0), LOGITS + 1)
    assert density.score is None
    assert torch.equal(density.entropy, density.log_prob)


def test_density_without_rsample_is_all_score():
    density = guide_density(NonreparameterizedNormal(LOGITS, 1.0), LOGITS + 1)
    assert density.entropy is None
    assert torch.equal(density.score, density.log_prob)


def test_transform_with_cached_sample_has_a_score():
    loc, scale = torch.tensor(0.3, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    transform = AffineTransform(loc, scale, cache_size=1)
    flow = dist.TransformedDistribution(NonreparameterizedNormal(0.0, 1.0), [transform])
    value = flow.sample()
    score = torch.autograd.grad(guide_density(flow, value).score, [loc, scale])
    expected = torch.autograd.grad(dist.Normal(loc, scale).log_prob(value), [loc, scale])
    torch.testing.assert_close(score, expected)


def test_mask_hides_the_cost_but_not_the_score():
    hidden = guide_density(dist.Bernoulli(logits=LOGITS).mask(False).to_event(1), torch.ones_like(LOGITS))
    assert (hidden.log_prob == 0).all()
    torch.testing.assert_close(hidden.score, bits().log_prob(torch.ones_like(LOGITS)))


def test_rare_bernoulli_samples_have_their_probability_in_half_precision():
    """False-positive rate: 1e-6, at 4.9 standard errors; noise in half precision tripled the frequency."""
    draws = 400_000
    logits = torch.full((draws,), 1e-3, dtype=torch.float64).logit().to(torch.bfloat16)
    torch.manual_seed(0)
    bits = draw_value(dist.Bernoulli(logits=logits).to_event(1))
    expected = logits[0].double().sigmoid().item()
    assert bits.dtype == torch.bfloat16
    assert abs(bits.float().mean().item() - expected) < 4.9 * (expected / draws) ** 0.5


def test_encoder_gradient_under_autocast_equals_that_of_its_logits():
    """False-positive rate: 1e-6, at 4.9 standard errors; noise in half precision tripled the gradient."""
    rows, reward, encoder = 400_000, 5.0, torch.nn.Linear(1, 1).float()
    torch.nn.init.constant_(encoder.weight, -6.5)
    torch.nn.init.constant_(encoder.bias, -0.4)

    def logits():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return encoder(torch.ones(rows, 1, dtype=torch.float32))

    def model():
        with pyro.plate("rows", rows):
            z = pyro.sample("z", dist.Bernoulli(torch.full((rows, 1), 0.5)).to_event(1))
            pyro.factor("reward", reward * z.sum(-1))

    def guide():
        with pyro.plate("rows", rows):
            pyro.sample("z", dist.Bernoulli(logits=logits()).to_event(1))

    loss = BlackBoxELBO(baseline=None).differentiable_loss(model, guide)
    (found,) = torch.autograd.grad(loss, encoder.bias)
    seen = logits()[0].detach()
    assert seen.dtype == torch.bfloat16
    # Probability, score, and log p - log q of a row, by its value.
    rate = seen.double().sigmoid()
    probability, score = torch.cat([1 - rate, rate]), torch.cat([-rate, 1 - rate])
    gradient = -score * (torch.tensor([0.0, reward]) + torch.tensor(0.5).log() - probability.log())
    mean = (probability * gradient).sum()
    error = ((probability * gradient**2).sum() - mean**2).sqrt() * rows**0.5
    assert abs(found.double() - rows * mean) < 4.9 * error
    assert 4.9 * error < 0.5 * abs(rows * mean)  # a tripled gradient would be detected
