"""Scores of single parameters, the control variates of an optimal scaling, in every family that a guide can sample."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from torch import Tensor
from torch.distributions import Distribution

from zoo.inference.elbo import NonReparameterized
from zoo.inference.elbo._control_variate import site_parameters
from zoo.inference.elbo._validation.sites import check_score

DRAWS = 20_000
ERRORS = 6.0
"""Standard errors that a mean of 0 may be off: in some 250 means, if normal, with a probability of 5e-7 in all.

A mean of 0.06 standard deviations of the score is found with a probability of .99."""


class Family(NamedTuple):
    """Distributions of one family, and values of the parameters."""

    make: Callable[..., Distribution]
    values: tuple[object, ...]

    def __call__(self, *batch: int) -> Distribution:
        """Return a batch of equal distributions with separate parameters."""
        values = [torch.tensor(value) for value in self.values]
        return self.make(*[value.expand((*batch, *value.shape)).clone().requires_grad_() for value in values])


def of(make, *values):
    return Family(make, values)


def alternating(x: Tensor) -> Tensor:
    return torch.tensor([True, False]).expand(x.shape)


THREE, WEIGHTS, MASKED = [0.3, -0.9, 0.5], [1.0, 2.0, 0.5], [0.3, -0.9, -torch.inf]
LOWER = [[1.1, 0.0], [0.3, 0.8]]
FAMILIES = {
    "Bernoulli logits": of(lambda x: dist.Bernoulli(logits=x), 0.4),
    "Bernoulli probs": of(lambda x: dist.Bernoulli(x), 0.4),
    "Binomial logits": of(lambda x: dist.Binomial(4, logits=x), 0.4),
    "Binomial probs": of(lambda x: dist.Binomial(4, x), 0.4),
    "Categorical logits": of(lambda x: dist.Categorical(logits=x), THREE),
    "Categorical logits, masked": of(lambda x: dist.Categorical(logits=x), MASKED),
    "Categorical probs": of(lambda x: dist.Categorical(x), WEIGHTS),
    "OneHotCategorical logits": of(lambda x: dist.OneHotCategorical(logits=x), THREE),
    "OneHotCategorical logits, masked": of(lambda x: dist.OneHotCategorical(logits=x), MASKED),
    "OneHotCategorical probs": of(lambda x: dist.OneHotCategorical(x), WEIGHTS),
    "OneHotCategoricalStraightThrough": of(lambda x: dist.OneHotCategoricalStraightThrough(logits=x), THREE),
    "Multinomial logits": of(lambda x: dist.Multinomial(4, logits=x), THREE),
    "Multinomial logits, masked": of(lambda x: dist.Multinomial(4, logits=x), MASKED),
    "Multinomial probs": of(lambda x: dist.Multinomial(4, x), WEIGHTS),
    "ContinuousBernoulli logits": of(lambda x: dist.ContinuousBernoulli(logits=x), 0.4),
    "ContinuousBernoulli probs": of(lambda x: dist.ContinuousBernoulli(x), 0.3),
    "MixtureSameFamily": of(
        lambda w, loc, scale: dist.MixtureSameFamily(dist.Categorical(logits=w), dist.Normal(loc, scale)),
        THREE,
        [0.0, 1.0, 3.0],
        [1.0, 0.5, 2.0],
    ),
    "MixtureSameFamily, masked": of(
        lambda w, loc: dist.MixtureSameFamily(dist.Categorical(logits=w), dist.Normal(loc, 1.0)), MASKED, THREE
    ),
    "BetaBinomial": of(lambda a, b: dist.BetaBinomial(a, b, 6), 2.0, 3.0),
    "DirichletMultinomial": of(lambda a: dist.DirichletMultinomial(a, 6), [2.0, 3.0, 1.0]),
    "GammaPoisson": of(dist.GammaPoisson, 3.0, 2.0),
    "Geometric logits": of(lambda x: dist.Geometric(logits=x), 0.4),
    "Geometric probs": of(lambda x: dist.Geometric(x), 0.4),
    "NegativeBinomial logits": of(lambda r, x: dist.NegativeBinomial(r, logits=x), 3.0, 0.4),
    "NegativeBinomial probs": of(lambda r, x: dist.NegativeBinomial(r, x), 3.0, 0.4),
    "Poisson": of(dist.Poisson, 2.0),
    "OrderedLogistic": of(dist.OrderedLogistic, 0.3, [-1.0, 0.5, 1.0]),
    "ZeroInflatedPoisson": of(lambda r, g: dist.ZeroInflatedPoisson(r, gate=g), 2.0, 0.3),
    "ZeroInflatedNegativeBinomial": of(
        lambda r, p, g: dist.ZeroInflatedNegativeBinomial(r, probs=p, gate=g), 2.0, 0.3, 0.2
    ),
    "ZeroInflatedDistribution": of(lambda p, g: dist.ZeroInflatedDistribution(dist.Geometric(p), gate=g), 0.3, 0.3),
    "Normal": of(dist.Normal, 0.3, 2.0),
    "Independent": of(lambda loc, scale: dist.Normal(loc, scale).to_event(1), [0.3, 0.1], [0.8, 1.0]),
    "MaskedDistribution": of(lambda loc, scale: dist.Normal(loc, scale).mask(False), 0.3, 0.8),
    "AffineBeta": of(lambda a, b: dist.AffineBeta(a, b, 0.5, 2.0), 2.0, 3.0),
    "TransformedDistribution": of(
        lambda loc, scale: dist.TransformedDistribution(dist.Normal(loc, scale), [transforms.SigmoidTransform()]),
        0.3,
        0.8,
    ),
}
"""Of those, the mean of each partial score is looked at in every run."""

MORE_FAMILIES = {
    "AsymmetricLaplace": of(dist.AsymmetricLaplace, 0.3, 1.5, 0.8),
    "Beta": of(dist.Beta, 2.0, 3.0),
    "Cauchy": of(dist.Cauchy, 0.3, 2.0),
    "Chi2": of(dist.Chi2, 3.0),
    "Dirichlet": of(dist.Dirichlet, [1.0, 2.0, 3.0]),
    "Exponential": of(dist.Exponential, 2.0),
    "ExtendedBetaBinomial": of(lambda a, b: dist.ExtendedBetaBinomial(a, b, 6), 2.0, 3.0),
    "ExtendedBinomial logits": of(lambda x: dist.ExtendedBinomial(6, logits=x), 0.3),
    "ExtendedBinomial probs": of(lambda x: dist.ExtendedBinomial(6, x), 0.3),
    "FisherSnedecor": of(dist.FisherSnedecor, 3.0, 9.0),
    "FoldedDistribution": of(lambda loc, scale: dist.FoldedDistribution(dist.Normal(loc, scale)), 0.3, 2.0),
    "Gamma": of(dist.Gamma, 3.0, 2.0),
    "HalfCauchy": of(dist.HalfCauchy, 2.0),
    "HalfNormal": of(dist.HalfNormal, 2.0),
    "LKJCholesky, 2 rows": of(lambda c: dist.LKJCholesky(2, c), 1.5),
    "Laplace": of(dist.Laplace, 0.3, 2.0),
    "LogNormal": of(dist.LogNormal, 0.3, 0.8),
    "Logistic": of(dist.Logistic, 0.3, 2.0),
    "LogisticNormal": of(dist.LogisticNormal, [0.3, 0.2], [0.8, 1.2]),
    "LowRankMultivariateNormal, of given covariance": of(
        lambda x: dist.LowRankMultivariateNormal(x, torch.ones(*x.shape, 1), torch.ones(x.shape)), [0.3, 0.2]
    ),
    "NanMaskedNormal": of(dist.NanMaskedNormal, 0.3, 2.0),
    "ProjectedNormal": of(dist.ProjectedNormal, [0.3, 0.8, -0.2]),
    "RelaxedBernoulli": of(lambda x: dist.RelaxedBernoulli(torch.tensor(0.7), logits=x), 0.4),
    "RelaxedBernoulliStraightThrough": of(
        lambda x: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.7), logits=x), 0.4
    ),
    "RelaxedOneHotCategorical": of(lambda x: dist.RelaxedOneHotCategorical(torch.tensor(0.7), logits=x), THREE),
    "RelaxedOneHotCategoricalStraightThrough": of(
        lambda x: dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(0.7), x), WEIGHTS
    ),
    "SineSkewed": of(lambda a, b, s: dist.SineSkewed(dist.VonMises(a, b).to_event(1), s), [0.1], [2.0], [0.4]),
    "SkewLogistic": of(dist.SkewLogistic, 0.3, 1.2, 0.8),
    "SoftLaplace": of(dist.SoftLaplace, 0.3, 1.2),
    "StudentT": of(dist.StudentT, 5.0, 0.3, 2.0),
    "TransformedDistribution, of vectors": of(
        lambda loc, scale: dist.TransformedDistribution(
            dist.Normal(loc, scale).to_event(1), [transforms.StickBreakingTransform()]
        ),
        [0.3, 0.1],
        [0.8, 1.0],
    ),
    "VonMises": of(dist.VonMises, 0.3, 2.0),
}
FEW_DRAWS = {
    "Stable": of(dist.Stable, 1.5, 0.1, 1.0, 0.0),
    "StableWithLogProb": of(dist.StableWithLogProb, 1.5, 0.1, 1.0, 0.0),
}
"""Whose log-probabilities are integrals."""

REFUSED = {
    "AffineBeta, moving": of(dist.AffineBeta, 2.0, 3.0, 0.5, 2.0),
    "AVFMultivariateNormal": of(dist.AVFMultivariateNormal, [0.3, 0.2], LOWER, [[[0.1, 0.2]], [[0.1, 0.2]]]),
    "Bernoulli probs, 0 and 1": of(lambda x: dist.Bernoulli(x).to_event(1), [0.0, 1.0]),
    "Binomial probs, 0 and 1": of(lambda x: dist.Binomial(4, x).to_event(1), [0.0, 1.0]),
    "Categorical probs, 0": of(lambda x: dist.Categorical(x), [1.0, 2.0, 0.0]),
    "Delta": of(dist.Delta, 0.3),
    "Delta, of learned density": of(lambda x: dist.Delta(torch.zeros_like(x), x), 0.3),
    "Empirical": of(lambda w: dist.Empirical(torch.arange(3.0), w), THREE),
    "GaussianHMM": of(
        lambda x: dist.GaussianHMM(
            dist.Normal(x, 1.0).to_event(1),
            torch.eye(2),
            dist.Normal(torch.zeros(2), 1.0).to_event(1),
            torch.eye(2),
            dist.Normal(torch.zeros(2), 1.0).to_event(1),
            duration=3,
        ),
        [0.3, 0.2],
    ),
    "GaussianScaleMixture": of(dist.GaussianScaleMixture, [1.0, 2.0], THREE, WEIGHTS),
    "Gumbel": of(dist.Gumbel, 0.4, 2.0),
    "InverseGamma": of(dist.InverseGamma, 3.0, 2.0),
    "Kumaraswamy": of(dist.Kumaraswamy, 3.0, 2.0),
    "LKJ": of(lambda c: dist.LKJ(3, c), 1.5),
    "LKJCholesky": of(lambda c: dist.LKJCholesky(3, c), 1.5),
    "LowRankMultivariateNormal": of(dist.LowRankMultivariateNormal, [0.3, 0.2], [[0.8], [1.2]], [0.5, 0.7]),
    "MaskedMixture": of(
        lambda a, b: dist.MaskedMixture(alternating(a), dist.Bernoulli(logits=a), dist.Bernoulli(b)),
        [0.3, 0.2],
        [0.5, 0.4],
    ),
    "MixtureOfDiagNormals": of(dist.MixtureOfDiagNormals, LOWER, [[0.5, 1.0], [1.0, 0.7]], [0.3, 0.1]),
    "MixtureOfDiagNormalsSharedCovariance": of(
        dist.MixtureOfDiagNormalsSharedCovariance, LOWER, [0.5, 1.0], [0.3, 0.1]
    ),
    "MultivariateNormal": of(lambda m, x: dist.MultivariateNormal(m, scale_tril=x), [0.3, 0.2], LOWER),
    "MultivariateStudentT": of(dist.MultivariateStudentT, 5.0, [0.3, 0.2], LOWER),
    "NanMaskedMultivariateNormal": of(
        lambda m, x: dist.NanMaskedMultivariateNormal(m, scale_tril=x), [0.3, 0.2], LOWER
    ),
    "OMTMultivariateNormal": of(dist.OMTMultivariateNormal, [0.3, 0.2], LOWER),
    "OneOneMatching": of(dist.OneOneMatching, [[0.3, 0.1], [0.2, 0.4]]),
    "Pareto": of(dist.Pareto, 2.0, 3.0),
    "RelaxedBernoulli, of learned temperature": of(lambda t, x: dist.RelaxedBernoulli(t, logits=x), 0.7, 0.4),
    "SoftAsymmetricLaplace": of(dist.SoftAsymmetricLaplace, 0.3, 1.2, 0.8, 0.9),
    "SpanningTree": of(dist.SpanningTree, [0.3, 0.1, 0.2]),
    "TransformedDistribution, learned": of(
        lambda loc, by: dist.TransformedDistribution(dist.Normal(loc, 1.0), [transforms.AffineTransform(0.0, by)]),
        0.3,
        0.8,
    ),
    "TruncatedPolyaGamma": of(dist.TruncatedPolyaGamma, [1.0]),
    "Uniform": of(dist.Uniform, 0.3, 2.0),
    "Weibull": of(dist.Weibull, 2.0, 1.7),
    "Wishart": of(lambda d, x: dist.Wishart(d, scale_tril=x), 15.0, LOWER),
    "ZeroInflatedPoisson, by logits": of(lambda r, g: dist.ZeroInflatedPoisson(r, gate_logits=g), 2.0, 0.3),
    "ZeroInflatedDistribution, by logits": of(
        lambda p, g: dist.ZeroInflatedDistribution(dist.Geometric(p), gate_logits=g), 0.3, 0.3
    ),
    "OneHotCategorical probs, 0": of(lambda x: dist.OneHotCategorical(x), [1.0, 2.0, 0.0]),
}
"""Families whose parameters are not shown, or that have no score."""

if hasattr(dist, "GeneralizedPareto"):  # not in older versions of torch
    REFUSED["GeneralizedPareto"] = of(
        lambda scale, c: dist.GeneralizedPareto(torch.zeros_like(scale), scale, c), 2.0, 0.3
    )


@pytest.fixture
def site(run_once):
    """Site of a guide with a score."""

    def make(distribution):
        law = NonReparameterized(distribution) if distribution.has_rsample else distribution
        torch.manual_seed(0)

        def program():
            pyro.sample("z", law)

        return run_once(program, program).guide["z"]

    return make


def checked_parameters(found):
    check_score(found)
    return site_parameters(found)


def check_mean(site, family, draws):
    found = site(family(draws))
    score = checked_parameters(found).score.reshape(draws, -1)
    assert score.isfinite().all()
    error = score.std(0) / draws**0.5
    # A probability of 0 is one of the smallest number in torch, whose logit has a score of about that.
    assert (score.mean(0).abs() <= ERRORS * error + 1e-12).all(), (score.mean(0), error)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_score_of_each_parameter_has_mean_0(family, site):
    check_mean(site, family, DRAWS)


@pytest.mark.slow
@pytest.mark.parametrize("family", MORE_FAMILIES.values(), ids=MORE_FAMILIES)
def test_score_of_each_parameter_has_mean_0_in_other_families(family, site):
    check_mean(site, family, DRAWS)


@pytest.mark.slow
@pytest.mark.parametrize("family", FEW_DRAWS.values(), ids=FEW_DRAWS)
def test_score_of_each_parameter_has_mean_0_in_slow_families(family, site):
    check_mean(site, family, 1000)


ENUMERATED = [name for name, family in (FAMILIES | MORE_FAMILIES).items() if family().has_enumerate_support]


@pytest.mark.parametrize("name", ENUMERATED)
def test_score_of_each_parameter_has_mean_0_over_all_values(name, site):
    family = (FAMILIES | MORE_FAMILIES)[name]
    values = family().enumerate_support()
    found = site(family(len(values)))._replace(value=values)
    score = site_parameters(found).score.reshape(len(values), -1)
    probability = found.distribution.log_prob(values).exp().detach().reshape(-1, 1)
    torch.testing.assert_close((probability * score).sum(0), torch.zeros(score.shape[1]), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Singular sample")
@pytest.mark.parametrize("family", REFUSED.values(), ids=REFUSED)
def test_unsupported_families_raise(family, site):
    found = site(family())
    with pytest.raises(ValueError, match=r"'z' \(\w+\)"):
        checked_parameters(found)


def test_lkj_sampler_of_torch_has_a_score_of_nonzero_mean_for_three_rows(site):
    found = site(dist.LKJCholesky(3, torch.full((DRAWS,), 1.5).requires_grad_()))
    score = site_parameters(found).score
    assert (score.mean() / (score.std() / DRAWS**0.5)).item() < -4 * ERRORS


NEVER_SAMPLED = {
    "CoalescentTimes": "by Pyro's epidemiology, of no parameters",
    "CoalescentTimesWithRate": "no sample()",
    "DiscreteHMM": "no sample() of its own that a log-probability could be told of",
    "Distribution": "abstract",
    "ExpandedDistribution": "what expand() makes of others",
    "ExponentialFamily": "abstract",
    "GammaGaussianHMM": "a sequence",
    "GaussianMRF": "no sample()",
    "GroupedNormalNormal": "no batch shape that its log_prob keeps",
    "ImproperUniform": "no sample()",
    "IndependentHMM": "of other sequences",
    "LKJCorrCholesky": "deprecated name of LKJCholesky",
    "LinearHMM": "no log_prob()",
    "LogNormalNegativeBinomial": "no sample()",
    "OneTwoMatching": "as OneOneMatching",
    "Rejector": "abstract",
    "SineBivariateVonMises": "takes minutes for a draw",
    "TorchDistribution": "abstract",
    "Unit": "a factor",
    "VonMises3D": "no sample()",
}


@pytest.mark.slow
def test_every_family_of_torch_and_pyro_is_tested():
    tables = [*FAMILIES, *MORE_FAMILIES, *FEW_DRAWS, *REFUSED, *NEVER_SAMPLED]
    known = {name.split(",")[0].split(" ")[0] for name in tables}
    families = {
        name
        for module in (torch.distributions, dist)
        for name, found in vars(module).items()
        if inspect.isclass(found) and issubclass(found, Distribution)
    }
    assert families <= known, families - known
