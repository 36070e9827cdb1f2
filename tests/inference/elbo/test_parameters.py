"""Parameters of a site's distribution, and their scores."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.testing.fakes import NonreparameterizedGamma, NonreparameterizedNormal
from pyro.distributions.testing.rejection_gamma import ShapeAugmentedGamma
from torch.distributions.transforms import AffineTransform

from zoo.inference.elbo._control_variate import site_parameters, stacked_parameters
from zoo.inference.programs._factors import NonreparameterizedLogNormal


def leaf(*values):
    return torch.tensor(values).requires_grad_()


def site(run_once, distribution):
    def program():
        pyro.sample("z", distribution)

    return run_once(program, program).guide["z"]


THETA = (0.3, -0.9, 0.5)
FINITE = {
    "bits": lambda theta: dist.Bernoulli(logits=theta),
    "bits by probability": lambda theta: dist.Bernoulli(theta.sigmoid()),
    "counts": lambda theta: dist.Binomial(4, logits=theta),
    "categories": lambda theta: dist.Categorical(logits=theta),
    "categories by probability": lambda theta: dist.Categorical(theta.exp()),
    "one-hot": lambda theta: dist.OneHotCategorical(logits=theta),
    "one-hot by probability": lambda theta: dist.OneHotCategorical(theta.exp()),
    "several categories": lambda theta: dist.Categorical(logits=torch.stack([theta, -theta])).to_event(1),
}


def outcomes(distribution):
    """All values and their probabilities."""
    if isinstance(distribution, dist.Independent):  # all pairs of values
        each = distribution.base_dist.enumerate_support(expand=False).flatten()
        values = torch.cartesian_prod(each, each)
    else:
        values = distribution.enumerate_support()
    return [(value, distribution.log_prob(value).exp().detach()) for value in values]


def mixture(theta):
    return dist.MixtureSameFamily(dist.Categorical(logits=theta), dist.Normal(3 * theta, theta.exp()))


def low_rank(diagonal):
    """Keeps a matrix and its decomposition, and uses both."""
    return dist.LowRankMultivariateNormal(torch.zeros(2), torch.ones(2, 1), diagonal).has_rsample_(False)


def scaled(by):
    return dist.TransformedDistribution(NonreparameterizedNormal(0.0, 1.0), [AffineTransform(0.0, by)])


class TestScore:
    @pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
    def test_score_has_expectation_0(self, make, run_once):
        found = site(run_once, make(leaf(*THETA)))
        terms = [
            site_parameters(found._replace(value=value)).score * probability.reshape(*probability.shape, 1)
            for value, probability in outcomes(make(leaf(*THETA)))
        ]
        torch.testing.assert_close(sum(terms), torch.zeros_like(terms[0]))

    def test_score_has_expectation_0_for_mixed_parameters(self, run_once):
        found, grid = site(run_once, mixture(leaf(*THETA))), torch.linspace(-25, 25, 5001)
        scores = torch.stack([site_parameters(found._replace(value=z)).score for z in grid])
        density = mixture(torch.tensor(THETA)).log_prob(grid).exp()
        torch.testing.assert_close((density[:, None] * scores).sum(0) * 0.01, torch.zeros(9), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("make", [*FINITE.values(), mixture], ids=[*FINITE, "mixture"])
    def test_score_times_parameter_has_the_gradient_of_the_log_density(self, make, run_once):
        theta = leaf(*THETA)
        found = site(run_once, make(theta))
        value, score = site_parameters(found)
        expected, by_parameters = (
            torch.autograd.grad(x.sum(), theta, retain_graph=True)[0]
            for x in (found.distribution.log_prob(found.value), value * score)
        )
        torch.testing.assert_close(by_parameters, expected)

    @pytest.mark.parametrize("parameterization", ["logits", "probs"])
    def test_score_has_expectation_0_with_logits_and_probabilities(self, parameterization, run_once):
        def law(parameter):
            return dist.ContinuousBernoulli(**{parameterization: parameter}).has_rsample_(False)

        found, grid = site(run_once, law(leaf(0.2, 0.9))), torch.linspace(0, 1, 20001)[:, None].expand(-1, 2)
        scores = torch.stack([site_parameters(found._replace(value=z)).score for z in grid[::40]])
        assert scores.shape[1:] == (2, 1)
        density = law(torch.tensor([0.2, 0.9])).log_prob(grid[::40]).exp()
        expectation = torch.trapezoid(density[..., None] * scores, dx=1 / 500, dim=0)
        torch.testing.assert_close(expectation, torch.zeros(2, 1), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("kind", [dist.Categorical, dist.OneHotCategorical])
    def test_masked_logit_has_score_0_and_finite_value(self, kind, run_once):
        def law(theta):
            return kind(logits=torch.cat([theta, torch.full((1,), -torch.inf)]))

        theta = leaf(0.3, -0.9)
        found = site(run_once, law(theta))
        value, score = site_parameters(found)
        assert value.isfinite().all()
        assert score[..., -1].item() == 0
        expected, by_parameters = (
            torch.autograd.grad(x.sum(), theta, retain_graph=True)[0]
            for x in (found.distribution.log_prob(found.value), value * score)
        )
        torch.testing.assert_close(by_parameters, expected)

    def test_score_of_normalized_parameters_has_nonzero_expectation(self, run_once):
        """The score without regard to the normalization of a categorical distribution."""
        law = dist.Categorical(logits=leaf(*THETA))
        naive = [torch.autograd.grad(law.log_prob(k), law.logits)[0] * law.probs[k] for k in law.enumerate_support()]
        assert sum(naive).min() > 0.1


class TestParametersOfASite:
    def test_scores_of_a_normal_equal_the_textbook_formula(self, run_once):
        loc, scale = leaf(0.5, -1.0), leaf(2.0, 0.3)
        found = site(run_once, NonreparameterizedNormal(loc, scale))
        centered = (found.value - loc) / scale
        value, score = site_parameters(found)
        assert torch.equal(value, torch.stack([loc, scale], -1))
        torch.testing.assert_close(score, torch.stack([centered / scale, (centered**2 - 1) / scale], -1))

    def test_parameters_of_an_event_belong_to_one_element(self, run_once):
        logits = torch.randn(2, 3).requires_grad_()
        found = site(run_once, dist.Bernoulli(logits=logits).to_event(1))
        value, score = site_parameters(found)
        assert value.shape == (2, 3)
        torch.testing.assert_close(score, found.value - logits.sigmoid())

    @pytest.mark.parametrize(
        "make",
        [NonreparameterizedLogNormal, lambda loc, scale: dist.LogNormal(loc, scale).has_rsample_(False)],
        ids=["by its class", "by a switch"],
    )
    def test_scores_of_a_lognormal_equal_those_of_a_normal_at_the_logarithm(self, make, run_once):
        loc, scale = leaf(0.5, -1.0), leaf(2.0, 0.3)
        found = site(run_once, make(loc, scale))
        centered = (found.value.log() - loc) / scale
        torch.testing.assert_close(site_parameters(found).score[:, 0], centered / scale)

    def test_parameters_without_gradient_are_omitted(self, run_once):
        value, _ = site_parameters(site(run_once, NonreparameterizedGamma(leaf(2.0, 3.0), torch.ones(2))))
        assert value.shape == (2, 1)

    def test_expanded_parameters_are_separate(self, run_once):
        assert site_parameters(site(run_once, dist.Bernoulli(logits=leaf(0.3)).expand([1, 4]))).value.shape == (1, 4, 1)

    @pytest.mark.parametrize(
        "law",
        [
            ShapeAugmentedGamma(leaf(2.0, 3.0), torch.ones(2)),
            dist.Categorical(logits=torch.zeros(4, 3)),
            low_rank(leaf(1.0, 2.0)),
            scaled(leaf(1.0)),
        ],
        ids=["partly pathwise", "without a gradient", "computed from one another", "in a transform"],
    )
    def test_hidden_or_shared_parameters_raise(self, law, run_once):
        with pytest.raises(ValueError, match=r"site 'z' .* does not expose the parameters"):
            site_parameters(site(run_once, law))


def test_particle_without_the_site_has_zeros(run_once):
    drawn = site(run_once, dist.Bernoulli(logits=leaf(0.3, -0.5)))
    value, score = stacked_parameters([drawn, None, drawn])
    assert value.shape == score.shape == (3, 2, 1)
    assert (value[1] == 0).all()
    assert (score[1] == 0).all()
    assert torch.equal(value[2, :, 0], torch.tensor([0.3, -0.5]))


def test_different_numbers_of_parameters_raise(run_once):
    few = site(run_once, NonreparameterizedNormal(leaf(0.5), 1.0))
    more = site(run_once, NonreparameterizedNormal(leaf(0.5), leaf(1.0)))
    with pytest.raises(ValueError, match=r"parameters of site 'z' .* differ in number between particles"):
        stacked_parameters([few, more])
