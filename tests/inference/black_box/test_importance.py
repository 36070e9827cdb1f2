"""The importance-weighted bound: VIMCO where the guide is discrete."""

import itertools

import pytest
import torch

from zoo.inference.black_box import BlackBoxELBO

pytestmark = pytest.mark.filterwarnings("ignore:site .* stands outside every plate")


def exact_bound(outcomes):
    """Expectation of the bound of two particles, over all pairs of what each can draw."""
    pairs = itertools.product(outcomes, repeat=2)
    return sum(p * q * (torch.logaddexp(one, other) - torch.tensor(2.0).log()) for (p, one), (q, other) in pairs)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("name", ["chain", "plates", "beside_a_path"])
def test_the_expected_gradient_is_that_of_the_bound(name, vectorized, programs, parameters, outcomes_of, moments):
    program = programs[name]()
    theta = parameters(program)
    elbo = BlackBoxELBO(2, vectorize_particles=vectorized, bound="iwae")
    elbo.differentiable_loss(program.model, program.guide, theta)
    (found,) = moments(elbo, program, theta).parameters
    (expected,) = torch.autograd.grad(-exact_bound(outcomes_of(program, theta)), theta)
    torch.testing.assert_close(found.mean, expected, rtol=0, atol=1e-9)
