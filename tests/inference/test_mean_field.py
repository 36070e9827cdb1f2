import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

from zoo.inference.mean_field import (
    guide_draws,
    normal_optimum,
    pathwise,
    pathwise_optimum,
    regression_optimum,
)
from zoo.inference.programs.factors import BernoulliFactor, NormalFactor

PRECISION = torch.tensor([[4.0, 1.2, 0.0], [1.2, 1.0, -0.3], [0.0, -0.3, 2.0]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def model():
    with pyro.plate("d", 3):
        x = pyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
    residual = x - MEAN
    pyro.factor("density", -(residual @ PRECISION * residual).sum(-1, keepdim=True) / 2)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.x = NormalFactor(torch.zeros(3, dtype=torch.float64), 0.3)

    def forward(self):
        with pyro.plate("d", 3):
            pyro.sample("x", self.x())


def kl_up_to_a_constant(mean, sd):
    """KL of a factorised normal from ``N(MEAN, PRECISION⁻¹)``."""
    residual = mean - MEAN
    return ((PRECISION.diagonal() * sd**2).sum() + residual @ PRECISION @ residual) / 2 - sd.log().sum()


def test_no_factorised_normal_near_the_optimum_is_closer():
    mean, sd = normal_optimum(MEAN, PRECISION)
    best = kl_up_to_a_constant(mean, sd)
    for element in torch.eye(3, dtype=torch.float64):
        for step in (-0.05, 0.05):
            assert kl_up_to_a_constant(mean + step * element, sd) > best
            assert kl_up_to_a_constant(mean, sd * (1 + step * element)) > best
    marginal = torch.linalg.inv(PRECISION).diagonal().sqrt()
    assert (sd < marginal).all()
    assert kl_up_to_a_constant(mean, marginal) > best + 0.01


def test_a_matrix_that_is_not_positive_definite_is_refused():
    with pytest.raises(ValueError, match="symmetric and positive definite"):
        normal_optimum(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


def test_the_regression_has_the_posterior_mean_and_the_conditional_variances():
    noise = np.random.default_rng(0)
    x, y = noise.normal(size=(9, 3)), noise.normal(size=9)
    covariance = np.linalg.inv(x.T @ x / 0.5**2 + np.eye(3) / 4)
    mean, sd = regression_optimum(torch.tensor(x), torch.tensor(y), noise_sd=0.5, prior_sd=2.0)
    assert mean.tolist() == pytest.approx(covariance @ x.T @ y / 0.5**2)
    assert sd.tolist() == pytest.approx(1 / np.sqrt(np.diag(np.linalg.inv(covariance))))
    with pytest.raises(ValueError, match="standard deviations must be positive"):
        regression_optimum(torch.tensor(x), torch.tensor(y), noise_sd=0.0, prior_sd=2.0)


def test_the_pathwise_run_finds_the_optimum_of_the_family_not_the_posterior():
    guide, state, store = Guide(), torch.get_rng_state(), dict(pyro.get_param_store().items())
    before = guide.x.shift.detach().clone()
    fitted = pathwise_optimum(model, guide, (), steps=300, particles=32)
    mean, sd = normal_optimum(MEAN, PRECISION)
    found = fitted.x()
    assert found.mean.tolist() == pytest.approx(mean.tolist(), abs=0.05)
    assert found.stddev.tolist() == pytest.approx(sd.tolist(), rel=0.05)
    assert found.has_rsample
    assert not guide.x().has_rsample
    assert torch.equal(guide.x.shift, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(pyro.get_param_store().items()) == store


def test_guides_without_pathwise_version_are_refused():
    discrete = Guide()
    discrete.z = BernoulliFactor(torch.zeros(2))
    for guide in (discrete, torch.nn.Linear(1, 1)):
        with pytest.raises(ValueError, match="only a guide made of continuous factors"):
            pathwise(guide)
    with pytest.raises(ValueError, match="steps and particles must be at least 1, got 0 and 4"):
        pathwise_optimum(model, Guide(), (), steps=0, particles=4)


def test_draws_of_a_guide_follow_the_seed_alone():
    guide = Guide()
    one, again, other = (guide_draws(guide, (), 5, seed)["x"] for seed in (0, 0, 1))
    assert one.shape == (5, 3)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
