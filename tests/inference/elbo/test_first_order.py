"""Second derivatives of the ELBO: correct if all sites are pathwise, errors otherwise."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._objective import first_order

# Which torch raises itself, when forward-mode differentiation is first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")

THETA = torch.tensor([0.1, -0.4, 0.7], dtype=torch.float64)
INPUTS = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.8, -1.1], [-0.7, 0.1, 0.9], [0.4, -1.3, 0.6]], dtype=torch.float64)
ANSWERS = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
REVERSE_OVER_REVERSE = torch.autograd.functional.hessian


def forward_over_reverse(function, theta):
    return torch.func.jacfwd(torch.func.jacrev(function), randomness="same")(theta)


def regression(theta):
    weights = pyro.sample("weights", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.sample("answers", dist.Bernoulli(logits=INPUTS @ weights).to_event(1), obs=ANSWERS)


def pathwise(theta):
    pyro.sample("weights", dist.Normal(theta, 0.5).to_event(1))


def discrete_model(theta):
    with pyro.plate("data", 4):
        z = pyro.sample("z", dist.Bernoulli(logits=theta[0]))
        pyro.sample("x", dist.Normal(z, 1.0), obs=ANSWERS)


def discrete(theta):
    with pyro.plate("data", 4):
        pyro.sample("z", dist.Bernoulli(logits=theta[1] + ANSWERS))


def loss(elbo, guide, model=regression):
    def seeded(theta):
        torch.manual_seed(1)
        return elbo.differentiable_loss(model, guide, theta)

    return seeded


class TestPathwiseSites:
    @pytest.mark.parametrize("hessian", [REVERSE_OVER_REVERSE, forward_over_reverse])
    def test_hessian_equals_that_of_trace_elbo(self, hessian):
        expected = torch.autograd.functional.hessian(loss(Trace_ELBO(), pathwise), THETA)
        torch.testing.assert_close(hessian(loss(BlackBoxELBO(), pathwise), THETA), expected)

    @pytest.mark.parametrize("particles", [1, 3])
    def test_gradient_by_torch_func_equals_that_of_trace_elbo(self, particles):
        expected = torch.func.grad(loss(Trace_ELBO(particles), pathwise))(THETA)
        torch.testing.assert_close(torch.func.grad(loss(BlackBoxELBO(particles), pathwise))(THETA), expected)

    def test_hessian_of_the_importance_weighted_bound_agrees_with_finite_differences(self):
        bound = loss(BlackBoxELBO(2, bound="iwae"), pathwise)
        assert torch.autograd.gradgradcheck(bound, THETA.clone().requires_grad_())


@pytest.mark.filterwarnings("ignore:site .* is outside every plate")
class TestScoredSites:
    @pytest.mark.parametrize("bound", ["elbo", "iwae"])
    def test_gradient_by_torch_func_equals_that_of_backward(self, bound):
        seeded = loss(BlackBoxELBO(2, bound=bound), discrete, discrete_model)
        expected = torch.autograd.functional.jacobian(seeded, THETA)
        torch.testing.assert_close(torch.func.grad(seeded)(THETA), expected)
        torch.testing.assert_close(torch.func.jvp(seeded, (THETA,), (THETA,))[1], expected @ THETA)

    @pytest.mark.parametrize("bound", ["elbo", "iwae"])
    @pytest.mark.parametrize("hessian", [REVERSE_OVER_REVERSE, forward_over_reverse])
    def test_hessian_raises(self, hessian, bound):
        with pytest.raises(ValueError, match=r"no second derivative.*surrogate\(order=2\)"):
            hessian(loss(BlackBoxELBO(2, bound=bound), discrete, discrete_model), THETA)

    def test_hessian_with_respect_to_model_parameters_is_available(self):
        def of_model(logit):
            def model(theta):
                discrete_model(logit.unsqueeze(0))

            return BlackBoxELBO(2).differentiable_loss(model, discrete, THETA)

        p = THETA[0].sigmoid()
        found = torch.autograd.functional.hessian(of_model, THETA[0])
        torch.testing.assert_close(found, 4 * p * (1 - p))


def test_vmap_over_the_loss_raises():
    with pytest.raises(ValueError, match=r"does not support torch\.func\.vmap"):
        torch.func.vmap(loss(BlackBoxELBO(), pathwise), randomness="same")(THETA.expand(2, 3))


def test_first_derivative_agrees_with_finite_differences():
    x = THETA.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: first_order((x**3).sum()), x, check_forward_ad=True)
