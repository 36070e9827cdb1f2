import pytest
import torch
from scipy import stats
from torch.nn.functional import softplus

from zoo.inference.programs._factors import (
    BernoulliFactor,
    BetaFactor,
    BetaMeanFactor,
    GammaFactor,
    LogNormalFactor,
    NormalFactor,
    inverse_softplus,
)

FACTORS = {
    "normal": lambda: NormalFactor(torch.tensor([2.0, 3.0]), 0.2, unit=torch.tensor([1.0, 10.0])),
    "lognormal": lambda: LogNormalFactor(torch.tensor([0.5, -1.0]), 0.2),
    "gamma": lambda: GammaFactor(torch.tensor([2.0, 0.03]), 100.0),
    "beta": lambda: BetaFactor(torch.tensor([2.0, 5.0]), torch.tensor([3.0, 1.0])),
    "beta by mean": lambda: BetaMeanFactor(torch.tensor([0.4, 0.8]), 5.0),
}
EXPECTED = {
    "normal": lambda: (stats.norm(2, 0.2), stats.norm(3, 2)),
    "lognormal": lambda: (stats.lognorm(0.2, scale=2.718281828**0.5), stats.lognorm(0.2, scale=1 / 2.718281828)),
    "gamma": lambda: (stats.gamma(100, scale=0.02), stats.gamma(100, scale=0.0003)),
    "beta": lambda: (stats.beta(2, 3), stats.beta(5, 1)),
    "beta by mean": lambda: (stats.beta(2, 3), stats.beta(4, 1)),
}


@pytest.mark.parametrize("name", FACTORS)
def test_factor_starts_at_given_moments(name):
    factor = FACTORS[name]()
    for row, expected in enumerate(EXPECTED[name]()):
        value = expected.ppf(0.3)
        found = factor(torch.tensor([row])).log_prob(torch.tensor([value], dtype=torch.float32))
        assert found.item() == pytest.approx(expected.logpdf(value), abs=1e-3)


@pytest.mark.parametrize("name", FACTORS)
def test_expanded_factor_still_uses_score_function(name):
    factor = FACTORS[name]()
    assert not factor().expand((4, 2)).has_rsample
    assert not factor().expand((4, 2)).sample().requires_grad
    factor.pathwise = True
    assert factor().expand((4, 2)).rsample().requires_grad


def test_bernoulli_factor_has_probabilities_of_its_logits():
    assert torch.allclose(BernoulliFactor(torch.tensor([0.0, 2.0]))().mean, torch.tensor([0.5, 0.8808]), atol=1e-4)


def test_gamma_samples_never_underflow():
    factor = GammaFactor(torch.ones(100_000), 1.0)
    torch.nn.init.constant_(factor.raw_mean, -100.0)
    torch.nn.init.constant_(factor.raw_shape, -100.0)
    torch.manual_seed(0)
    draws = factor().sample()
    assert draws.min() > torch.finfo(torch.float32).tiny
    assert factor().log_prob(draws).isfinite().all()


def test_gamma_samples_underflow_without_floor():
    torch.manual_seed(0)
    draws = torch.distributions.Gamma(torch.full((1000,), 0.01), 1.0).sample()
    assert (draws <= torch.finfo(torch.float32).tiny).any()


def test_inverse_softplus_undoes_softplus_over_many_magnitudes():
    value = torch.tensor([1e-6, 1e-2, 1.0, 30.0, 1e3])
    assert torch.allclose(softplus(inverse_softplus(value)), value, rtol=1e-5)
