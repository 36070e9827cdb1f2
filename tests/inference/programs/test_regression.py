import numpy as np
import pytest
import torch
from scipy import stats

from zoo.inference.programs import _regression as regression

pytestmark = pytest.mark.usefixtures("double")


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
