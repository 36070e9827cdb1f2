from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from zoo.inference.programs import _gaussian_mixture as gaussian_mixture

pytestmark = pytest.mark.usefixtures("double")


def mixture_values(noise):
    mu, sigma, theta = noise.normal(0, 2, size=2), noise.gamma(2, size=2), noise.beta(5, 5)
    prior = (
        stats.norm(0, 2).logpdf(mu).sum() + stats.halfnorm(scale=2).logpdf(sigma).sum() + stats.beta(5, 5).logpdf(theta)
    )
    return mu, sigma, theta, prior


def test_first_component_has_weight_theta(joint, zoo_data, noise, tensors):
    (y,) = gaussian_mixture.GAUSSIAN_MIXTURE.load(zoo_data)
    mu, sigma, theta, prior = mixture_values(noise)
    per_component = stats.norm(mu, sigma).logpdf(y.numpy()[:, None]) + np.log([theta, 1 - theta])
    expected = prior + logsumexp(per_component, 1).sum()
    values = tensors(mu=mu, sigma=sigma, theta=theta)
    assert joint(gaussian_mixture.model, (y,), values) == pytest.approx(expected, rel=1e-12)


def test_summing_over_all_assignments_gives_the_mixture(joint, zoo_data, noise, tensors):
    (y,) = gaussian_mixture.GAUSSIAN_MIXTURE.load(zoo_data)
    mu, sigma, theta, _ = mixture_values(noise)
    values = tensors(mu=mu, sigma=sigma, theta=theta)
    joints = [
        joint(gaussian_mixture.model_with_assignments, (y,), {**values, "second": torch.tensor(second)})
        for second in product([0.0, 1.0], repeat=len(y))
    ]
    assert logsumexp(joints) == pytest.approx(joint(gaussian_mixture.model, (y,), values), rel=1e-12)
