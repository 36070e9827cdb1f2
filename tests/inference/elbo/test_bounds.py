"""The importance-weighted bound, with VIMCO for discrete guides."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.inference.elbo import BlackBoxELBO

pytestmark = pytest.mark.filterwarnings("ignore:site .* is outside every plate")


def exact_bound(outcomes):
    """Expectation of the bound of two particles, over all pairs of outcomes."""
    pairs = itertools.product(outcomes, repeat=2)
    return sum(p * q * (torch.logaddexp(one, other) - torch.tensor(2.0).log()) for (p, one), (q, other) in pairs)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("name", ["chain", "plates", "beside_a_path"])
def test_expected_gradient_equals_that_of_the_bound(name, vectorized, programs, parameters, outcomes_of, moments):
    program = programs[name]()
    theta = parameters(program)
    elbo = BlackBoxELBO(2, vectorize_particles=vectorized, bound="iwae")
    elbo.differentiable_loss(program.model, program.guide, theta)
    (found,) = moments(elbo, program, theta).parameters
    (expected,) = torch.autograd.grad(-exact_bound(outcomes_of(program, theta)), theta)
    torch.testing.assert_close(found.mean, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("vectorized", [False, True])
def test_pathwise_guide_is_supported(vectorized):
    """A point mass in a plate: both particles are equal, and the bound is ``log p``."""
    loc, x = torch.tensor([0.3, -0.4], requires_grad=True), torch.tensor([1.0, 2.0])

    def model():
        with pyro.plate("data", 2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide():
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Delta(loc))

    loss = BlackBoxELBO(2, vectorized, bound="iwae").differentiable_loss(model, guide)
    torch.testing.assert_close(torch.autograd.grad(loss, loc)[0], loc - (x - loc))


def test_program_without_sites_raises():
    with pytest.raises(ValueError, match="neither the model nor the guide samples anything"):
        BlackBoxELBO(2, bound="iwae").loss(lambda: None, lambda: None)
