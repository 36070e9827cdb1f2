"""Distributions without pathwise gradient."""

import math
import threading

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import transforms

from zoo.inference.elbo import BlackBoxELBO, NonReparameterized
from zoo.inference.elbo._validation.rsample_flags import record_flags

LOC = 0.3
DATA = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

REPEATED = {
    "in a plate": NonReparameterized,
    "expanded": lambda normal: NonReparameterized(normal).expand([3]),
    "repeated": lambda normal: NonReparameterized(normal).expand_by([3]),
    "masked": lambda normal: NonReparameterized(normal).mask(torch.tensor(True)),
    "around a mask": lambda normal: NonReparameterized(normal.mask(True)),
    "an event": lambda normal: NonReparameterized(normal.expand([1])).to_event(1),
    "an event, expanded": lambda normal: NonReparameterized(normal.expand([1])).to_event(1).expand([3]),
    "around an event": lambda normal: NonReparameterized(normal.expand([1]).to_event(1)),
    "of what is wrapped": lambda normal: NonReparameterized(NonReparameterized(normal)),
}


def positive(w):
    """Step function, whose derivative is 0."""
    return torch.where(w > 0, 1.0, -1.0)


def model_of(prior):
    def model():
        with pyro.plate("data", 3):
            w = pyro.sample("w", prior)
            w = w.squeeze(-1) if prior.event_shape else w
            pyro.sample("x", dist.Normal(positive(w), 1.0), obs=DATA)

    return model


def guide_of(make):
    def guide():
        with pyro.plate("data", 3):
            pyro.sample("w", make(pyro.param("loc", torch.tensor(LOC))))

    return guide


def gradient(make, prior, particles=4):
    pyro.clear_param_store()
    torch.manual_seed(0)
    BlackBoxELBO(particles, vectorize_particles=True, max_plate_nesting=1).loss_and_grads(
        model_of(prior), guide_of(lambda loc: make(dist.Normal(loc, 1.0)))
    )
    return pyro.param("loc").grad.item()


def exact_gradient():
    """Gradient of the negative ELBO by quadrature; the three elements are independent."""
    loc = torch.tensor(LOC, requires_grad=True)
    w = torch.linspace(-9, 9, 10_001)
    log_q, log_p = dist.Normal(loc, 1.0).log_prob(w), dist.Normal(0.0, 1.0).log_prob(w)
    likelihood = dist.Normal(positive(w), 1.0).log_prob(DATA.unsqueeze(-1)).sum(0)
    elbo = torch.trapezoid(log_q.exp() * (likelihood + 3 * (log_p - log_q)), w)
    return -torch.autograd.grad(elbo, loc)[0].item()


def test_gradient_through_a_discontinuity_equals_that_of_the_elbo():
    """The standard error is 0.0092 (measured), the false-positive rate 1e-6; the pathwise gradient differs by 2.6."""
    found = gradient(NonReparameterized, dist.Normal(0.0, 1.0), particles=20_000)
    assert found == pytest.approx(exact_gradient(), abs=5 * 0.0092)
    assert gradient(lambda normal: normal, dist.Normal(0.0, 1.0), particles=20_000) > 0


@pytest.mark.parametrize("make", REPEATED.values(), ids=REPEATED)
def test_gradient_is_the_same_however_the_distribution_is_expanded(make):
    """The mask is true everywhere, so only the flag could be lost."""
    prior = dist.Normal(0.0, 1.0)
    event = bool(make(prior).event_shape)
    found = gradient(make, prior.expand([1]).to_event(1) if event else prior)
    assert found == pytest.approx(gradient(NonReparameterized, prior), abs=1e-9)


def test_distributions_without_has_rsample_setter_are_supported():
    for distribution in (dist.Gumbel(0.0, 1.0), dist.Weibull(1.0, 2.0), dist.Pareto(1.0, 2.0)):
        assert not NonReparameterized(distribution).expand([2]).to_event(1).has_rsample


def test_methods_delegate_to_the_distribution():
    gamma = dist.Gamma(2.0, 3.0)
    wrapped = NonReparameterized(gamma)
    assert wrapped.mean == gamma.mean
    assert wrapped.mode == gamma.mode
    assert wrapped.variance == gamma.variance
    assert wrapped.stddev == gamma.stddev
    assert wrapped.entropy() == gamma.entropy()
    assert wrapped.cdf(torch.tensor(1.0)) == gamma.cdf(torch.tensor(1.0))
    assert NonReparameterized(dist.Normal(0.0, 1.0)).icdf(torch.tensor(0.5)) == 0
    assert wrapped.support is gamma.support
    assert not wrapped.has_enumerate_support
    assert NonReparameterized(dist.Bernoulli(0.5)).enumerate_support().tolist() == [0, 1]
    assert repr(wrapped).startswith("NonReparameterized(Gamma(")
    assert wrapped.sample((2, 3)).shape == (2, 3)


def test_wrapper_can_be_the_base_of_a_transformed_distribution():
    loc = torch.tensor(LOC, requires_grad=True)
    flow = dist.TransformedDistribution(
        NonReparameterized(dist.Normal(0.0, 1.0)), [transforms.AffineTransform(loc, 2.0, cache_size=1)]
    )
    assert not flow.expand([3]).has_rsample


def test_parameter_dependent_support_raises_inside_the_wrapper():
    for make in (
        lambda loc: NonReparameterized(dist.Uniform(loc, loc + 1)),
        lambda loc: NonReparameterized(dist.Uniform(loc, loc + 1)).mask(True),
        lambda loc: NonReparameterized(
            dist.TransformedDistribution(dist.Beta(1.0, 1.0), [transforms.AffineTransform(0.0, loc)])
        ),
        lambda loc: dist.TransformedDistribution(
            NonReparameterized(dist.Uniform(loc, loc + 1)), [transforms.AffineTransform(0.0, 1.0)]
        ),
        lambda loc: NonReparameterized(dist.Delta(loc)),
    ):
        pyro.clear_param_store()
        with pytest.raises(ValueError, match=r"support of site 'w' .* depends on its parameters"):
            BlackBoxELBO().loss_and_grads(model_of(dist.Normal(0.0, 1.0)), guide_of(make))


class TestLostFlag:
    @pytest.mark.parametrize("vectorized", [False, True])
    @pytest.mark.parametrize(
        "make",
        [
            lambda loc: dist.Normal(loc, 1.0).has_rsample_(False).expand([3]),
            lambda loc: dist.Normal(loc, 1.0).has_rsample_(False).expand_by([3]),
            lambda loc: dist.Normal(loc, 1.0).has_rsample_(False).expand([3]).mask(True),
        ],
    )
    def test_lost_flag_raises_with_a_remedy(self, make, vectorized):
        elbo = BlackBoxELBO(2, vectorize_particles=vectorized)
        with pytest.raises(ValueError, match=r"has_rsample_\(False\) of site 'w' \(Normal\) was lost.*NonReparam"):
            elbo.loss_and_grads(model_of(dist.Normal(0.0, 1.0)), guide_of(make))

    @pytest.mark.parametrize("vectorized", [False, True])
    @pytest.mark.parametrize(
        "make",
        [
            lambda loc: dist.Gumbel(loc, 1.0).has_rsample_(False),
            lambda loc: dist.Weibull(loc.exp(), 1.0).has_rsample_(False),
            lambda loc: dist.Normal(loc.expand(1), 1.0).has_rsample_(False).to_event(1),
            lambda loc: dist.Normal(loc, 1.0).has_rsample_(False).mask(True),
        ],
    )
    def test_flag_without_setter_raises_with_a_remedy(self, make, vectorized):
        elbo = BlackBoxELBO(2, vectorize_particles=vectorized)
        with pytest.raises(ValueError, match=r"has_rsample_\(False\) cannot be stored.*NonReparameterized"):
            elbo.loss_and_grads(model_of(dist.Normal(0.0, 1.0)), guide_of(make))

    @pytest.mark.parametrize(
        "make",
        [
            lambda loc: dist.Normal(loc, 1.0).has_rsample_(False),
            lambda loc: dist.Normal(loc, 1.0).has_rsample_(True),
        ],
    )
    def test_kept_flag_raises_nothing(self, make):
        loss = BlackBoxELBO(2).loss_and_grads(model_of(dist.Normal(0.0, 1.0)), guide_of(make))
        assert math.isfinite(loss)

    def test_method_of_pyro_is_restored(self):
        before = dist.Normal.has_rsample_
        BlackBoxELBO(2).loss_and_grads(model_of(dist.Normal(0.0, 1.0)), guide_of(lambda loc: dist.Normal(loc, 1.0)))
        assert dist.Normal.has_rsample_ is before

    def test_flags_are_recorded_per_thread_and_the_method_is_restored_by_the_last(self):
        before, entered, noted = dist.Normal.has_rsample_, threading.Barrier(2, timeout=10), {}

        def note(value, stay=None):
            with record_flags() as noted[value]:
                entered.wait()
                dist.Normal(0.0, 1.0).has_rsample_(value)
                if stay is not None:
                    stay.join()

        first = threading.Thread(target=note, args=(True,))
        first.start()
        note(False, stay=first)
        assert (len(noted[True]), len(noted[False])) == (0, 1)
        assert dist.Normal.has_rsample_ is before


def test_other_errors_of_a_guide_are_unchanged():
    def guide():
        None.missing  # noqa: B018

    with pytest.raises(AttributeError, match="missing"):
        BlackBoxELBO().loss_and_grads(guide, guide)


def test_site_that_changes_from_pathwise_to_scored_is_checked_again():
    elbo = BlackBoxELBO()
    prior = dist.Uniform(-5.0, 5.0)
    elbo.loss_and_grads(model_of(prior), guide_of(lambda loc: dist.Uniform(loc - 1, loc + 1)))
    with pytest.raises(ValueError, match="depends on its parameters"):
        elbo.loss_and_grads(model_of(prior), guide_of(lambda loc: dist.Uniform(loc - 1, loc + 1).has_rsample_(False)))


def test_support_bound_that_becomes_a_parameter_raises():
    elbo, prior = BlackBoxELBO(), dist.Uniform(-5.0, 5.0)
    elbo.loss_and_grads(model_of(prior), guide_of(lambda loc: NonReparameterized(dist.Uniform(-loc.detach(), 1.0))))
    for _ in range(3):
        elbo.loss_and_grads(model_of(prior), guide_of(lambda loc: NonReparameterized(dist.Uniform(-1.0, 1.0))))
    with pytest.raises(ValueError, match="depends on its parameters"):
        elbo.loss_and_grads(model_of(prior), guide_of(lambda loc: NonReparameterized(dist.Uniform(-loc, 1.0))))


def test_mask_inside_the_wrapper_hides_the_term_but_not_the_score():
    def guide():
        z = pyro.sample("z", NonReparameterized(dist.Normal(pyro.param("loc", torch.tensor(LOC)), 1.0).mask(False)))
        return z

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0).mask(False))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(2.0))

    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="outside every plate"):
        BlackBoxELBO(20_000, vectorize_particles=True).loss_and_grads(model, poutine.mask(guide, True))
    found = pyro.param("loc").grad.item()  # exactly loc - 2; its standard error is below 0.02
    assert found == pytest.approx(LOC - 2, abs=0.12)
