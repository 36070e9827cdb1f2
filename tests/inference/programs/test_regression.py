import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from zoo.inference.programs import _regression as regression

pytestmark = pytest.mark.usefixtures("double")

PRECISION = torch.tensor([[4.0, 1.2, 0.0], [1.2, 1.0, -0.3], [0.0, -0.3, 2.0]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def test_joint_density_of_regression_equals_scipy(joint, zoo_data, noise, tensors):
    x, y = regression.SBLRI.load(zoo_data)
    beta, sigma = noise.normal(size=2), noise.gamma(2)
    expected = (
        stats.norm(0, 10).logpdf(beta).sum()
        + stats.halfnorm(scale=10).logpdf(sigma)
        + stats.norm(x.numpy() @ beta, sigma).logpdf(y.numpy()).sum()
    )
    assert joint(regression.model, (x, y), tensors(beta=beta, sigma=sigma)) == pytest.approx(expected, rel=1e-12)


def test_least_squares_gives_the_error_of_each_coefficient_with_the_others_held(noise):
    x = noise.normal(size=(20, 3))
    y = x @ [1, 2, 3] + noise.normal(size=20)
    fit = regression.least_squares(torch.tensor(x), torch.tensor(y))
    beta, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert fit.beta.tolist() == pytest.approx(beta)
    assert fit.sigma.item() == pytest.approx(np.sqrt(rss[0] / 17))
    assert fit.error.tolist() == pytest.approx(np.sqrt(rss[0] / 17 / np.diag(x.T @ x)))


def test_kidiq_has_flat_coefficients(joint, zoo_data, noise, tensors):
    x, y = regression.KIDIQ.load(zoo_data)
    assert x.tolist() == [[1, 1], [1, 1], [1, 0], [1, 1], [1, 0]]
    beta, sigma = noise.normal(80, 10, size=2), noise.gamma(20)
    expected = stats.halfcauchy(scale=2.5).logpdf(sigma) + stats.norm(x.numpy() @ beta, sigma).logpdf(y.numpy()).sum()
    assert joint(regression.kidiq_model, (x, y), tensors(beta=beta, sigma=sigma)) == pytest.approx(expected, rel=1e-12)


def kl_up_to_a_constant(mean, sd):
    """KL of a factorized normal from ``N(MEAN, PRECISION⁻¹)``."""
    residual = mean - MEAN
    return ((PRECISION.diagonal() * sd**2).sum() + residual @ PRECISION @ residual) / 2 - sd.log().sum()


def test_no_factorized_normal_near_the_optimum_is_closer():
    mean, sd = regression.normal_optimum(MEAN, PRECISION)
    best = kl_up_to_a_constant(mean, sd)
    for element in torch.eye(3, dtype=torch.float64):
        for step in (-0.05, 0.05):
            assert kl_up_to_a_constant(mean + step * element, sd) > best
            assert kl_up_to_a_constant(mean, sd * (1 + step * element)) > best
    marginal = torch.linalg.inv(PRECISION).diagonal().sqrt()
    assert (sd < marginal).all()
    assert kl_up_to_a_constant(mean, marginal) > best + 0.01


def test_indefinite_precision_matrix_raises():
    with pytest.raises(ValueError, match="symmetric and positive definite"):
        regression.normal_optimum(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


def test_the_regression_has_the_posterior_mean_and_the_conditional_variances():
    noise = np.random.default_rng(0)
    x, y = noise.normal(size=(9, 3)), noise.normal(size=9)
    covariance = np.linalg.inv(x.T @ x / 0.5**2 + np.eye(3) / 4)
    mean, sd = regression.coefficients_optimum(torch.tensor(x), torch.tensor(y), noise_sd=0.5, prior_sd=2.0)
    assert mean.tolist() == pytest.approx(covariance @ x.T @ y / 0.5**2)
    assert sd.tolist() == pytest.approx(1 / np.sqrt(np.diag(np.linalg.inv(covariance))))


class TestRegressionWithNoise:
    X = torch.tensor([[1.0, 0.2], [1.0, -0.7], [1.0, 1.1], [1.0, 0.4], [1.0, -1.3]], dtype=torch.float64)
    Y = torch.tensor([2.0, 0.4, 3.3, 1.9, -0.2], dtype=torch.float64)
    NOISE = dist.HalfNormal(torch.tensor(3.0, dtype=torch.float64))

    def elbo(self, beta, sigma):
        """Of exact terms, but for the prior of the noise, which is summed over a fine grid."""
        sd, residual = beta.stddev, self.Y - self.X @ beta.mean
        squares = residual @ residual + (self.X**2 @ sd**2).sum()
        precision = (2 * sigma.scale**2 - 2 * sigma.loc).exp()
        z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
        weights = torch.softmax(-(z**2) / 2, 0)
        log_prior = weights @ self.NOISE.log_prob((sigma.loc + sigma.scale * z).exp())
        prior = -(beta.mean**2 + sd**2).sum() / (2 * 2.0**2)
        return -5 * sigma.loc - squares * precision / 2 + log_prior + prior + sd.log().sum() + sigma.entropy()

    def test_no_mean_field_near_the_optimum_has_a_larger_elbo(self):
        beta, sigma = regression.optimum(self.X, self.Y, 2.0, self.NOISE).values()
        best = self.elbo(beta, sigma)
        for step in (-0.05, 0.05):
            for element in torch.eye(2, dtype=torch.float64):
                assert self.elbo(dist.Normal(beta.mean + step * element, beta.stddev), sigma) < best
                assert self.elbo(dist.Normal(beta.mean, beta.stddev * (1 + step * element)), sigma) < best
            assert self.elbo(beta, dist.LogNormal(sigma.loc + step, sigma.scale)) < best
            assert self.elbo(beta, dist.LogNormal(sigma.loc, sigma.scale * (1 + step))) < best

    def test_coordinate_ascent_without_convergence_raises(self):
        with pytest.raises(ValueError, match="has not converged after 1 iterations"):
            regression.optimum(self.X, self.Y, 2.0, self.NOISE, max_iterations=1)
