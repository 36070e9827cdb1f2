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


def site(recorded, distribution):
    def program():
        pyro.sample("z", distribution)

    return recorded(program, program).guide["z"]


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
    """All values, and the probability of each."""
    if isinstance(distribution, dist.Independent):  # all pairs of values of two
        each = distribution.base_dist.enumerate_support(expand=False).flatten()
        values = torch.cartesian_prod(each, each)
    else:
        values = distribution.enumerate_support()
    return [(value, distribution.log_prob(value).exp().detach()) for value in values]


def mixture(theta):
    return dist.MixtureSameFamily(dist.Categorical(logits=theta), dist.Normal(3 * theta, theta.exp()))


def low_rank(diagonal):
    """Keeps a decomposition beside what it was made from, and uses both."""
    return dist.LowRankMultivariateNormal(torch.zeros(2), torch.ones(2, 1), diagonal).has_rsample_(False)


def scaled(by):
    return dist.TransformedDistribution(NonreparameterizedNormal(0.0, 1.0), [AffineTransform(0.0, by)])


class TestTheScore:
    @pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
    def test_has_expectation_0(self, make, recorded):
        found = site(recorded, make(leaf(*THETA)))
        terms = [
            site_parameters(found._replace(value=value)).score * probability.reshape(*probability.shape, 1)
            for value, probability in outcomes(make(leaf(*THETA)))
        ]
        torch.testing.assert_close(sum(terms), torch.zeros_like(terms[0]))

    def test_has_expectation_0_where_kinds_are_mixed(self, recorded):
        found, grid = site(recorded, mixture(leaf(*THETA))), torch.linspace(-25, 25, 5001)
        scores = torch.stack([site_parameters(found._replace(value=z)).score for z in grid])
        density = mixture(torch.tensor(THETA)).log_prob(grid).exp()
        torch.testing.assert_close((density[:, None] * scores).sum(0) * 0.01, torch.zeros(9), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("make", [*FINITE.values(), mixture], ids=[*FINITE, "mixture"])
    def test_leads_to_the_gradient_of_the_log_density(self, make, recorded):
        theta = leaf(*THETA)
        found = site(recorded, make(theta))
        value, score = site_parameters(found)
        expected, by_parameters = (
            torch.autograd.grad(x.sum(), theta, retain_graph=True)[0]
            for x in (found.distribution.log_prob(found.value), value * score)
        )
        torch.testing.assert_close(by_parameters, expected)

    @pytest.mark.parametrize("parametrisation", ["logits", "probs"])
    def test_has_expectation_0_where_logits_and_probabilities_are_both_used(self, parametrisation, recorded):
        def law(parameter):
            return dist.ContinuousBernoulli(**{parametrisation: parameter}).has_rsample_(False)

        found, grid = site(recorded, law(leaf(0.2, 0.9))), torch.linspace(0, 1, 20001)[:, None].expand(-1, 2)
        scores = torch.stack([site_parameters(found._replace(value=z)).score for z in grid[::40]])
        assert scores.shape[1:] == (2, 1)
        density = law(torch.tensor([0.2, 0.9])).log_prob(grid[::40]).exp()
        expectation = torch.trapezoid(density[..., None] * scores, dx=1 / 500, dim=0)
        torch.testing.assert_close(expectation, torch.zeros(2, 1), rtol=0, atol=1e-4)

    @pytest.mark.parametrize("kind", [dist.Categorical, dist.OneHotCategorical])
    def test_of_a_masked_logit_is_0_and_its_value_a_number(self, kind, recorded):
        def law(theta):
            return kind(logits=torch.cat([theta, torch.full((1,), -torch.inf)]))

        theta = leaf(0.3, -0.9)
        found = site(recorded, law(theta))
        value, score = site_parameters(found)
        assert value.isfinite().all()
        assert score[..., -1].item() == 0
        expected, by_parameters = (
            torch.autograd.grad(x.sum(), theta, retain_graph=True)[0]
            for x in (found.distribution.log_prob(found.value), value * score)
        )
        torch.testing.assert_close(by_parameters, expected)

    def test_of_normalised_parameters_alone_would_have_another_expectation(self, recorded):
        """What a score is if nobody sees that a categorical distribution normalises."""
        law = dist.Categorical(logits=leaf(*THETA))
        naive = [torch.autograd.grad(law.log_prob(k), law.logits)[0] * law.probs[k] for k in law.enumerate_support()]
        assert sum(naive).min() > 0.1


class TestParametersOfASite:
    def test_of_a_normal_have_the_scores_of_a_textbook(self, recorded):
        loc, scale = leaf(0.5, -1.0), leaf(2.0, 0.3)
        found = site(recorded, NonreparameterizedNormal(loc, scale))
        centred = (found.value - loc) / scale
        value, score = site_parameters(found)
        assert torch.equal(value, torch.stack([loc, scale], -1))
        torch.testing.assert_close(score, torch.stack([centred / scale, (centred**2 - 1) / scale], -1))

    def test_of_a_vector_of_bits_belong_to_one_element(self, recorded):
        logits = torch.randn(2, 3).requires_grad_()
        found = site(recorded, dist.Bernoulli(logits=logits).to_event(1))
        value, score = site_parameters(found)
        assert value.shape == (2, 3)
        torch.testing.assert_close(score, found.value - logits.sigmoid())

    @pytest.mark.parametrize(
        "make",
        [NonreparameterizedLogNormal, lambda loc, scale: dist.LogNormal(loc, scale).has_rsample_(False)],
        ids=["by its class", "by a switch"],
    )
    def test_of_a_lognormal_have_the_scores_of_a_normals_at_the_logarithm(self, make, recorded):
        loc, scale = leaf(0.5, -1.0), leaf(2.0, 0.3)
        found = site(recorded, make(loc, scale))
        centred = (found.value.log() - loc) / scale
        torch.testing.assert_close(site_parameters(found).score[:, 0], centred / scale)

    def test_that_have_no_gradient_are_left_out(self, recorded):
        value, _ = site_parameters(site(recorded, NonreparameterizedGamma(leaf(2.0, 3.0), torch.ones(2))))
        assert value.shape == (2, 1)

    def test_that_elements_share_are_each_ones_own_when_expanded(self, recorded):
        assert site_parameters(site(recorded, dist.Bernoulli(logits=leaf(0.3)).expand([1, 4]))).value.shape == (1, 4, 1)

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
    def test_that_cannot_be_told_apart_are_refused(self, law, recorded):
        with pytest.raises(ValueError, match=r"site 'z' .* does not expose the parameters"):
            site_parameters(site(recorded, law))


def test_a_particle_that_did_not_draw_a_site_has_zeros(recorded):
    drawn = site(recorded, dist.Bernoulli(logits=leaf(0.3, -0.5)))
    value, score = stacked_parameters([drawn, None, drawn])
    assert value.shape == score.shape == (3, 2, 1)
    assert (value[1] == 0).all()
    assert (score[1] == 0).all()
    assert torch.equal(value[2, :, 0], torch.tensor([0.3, -0.5]))


def test_particles_with_other_parameters_are_refused(recorded):
    few = site(recorded, NonreparameterizedNormal(leaf(0.5), 1.0))
    more = site(recorded, NonreparameterizedNormal(leaf(0.5), leaf(1.0)))
    with pytest.raises(ValueError, match=r"parameters of site 'z' .* differ in number between particles"):
        stacked_parameters([few, more])
