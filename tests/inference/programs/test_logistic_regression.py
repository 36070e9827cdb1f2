import pytest
from scipy import stats
from scipy.special import expit

from zoo.inference.programs import _logistic_regression as logistic_regression

pytestmark = pytest.mark.usefixtures("double")


def test_joint_density_of_logistic_regression_equals_scipy(joint, noise, tensors):
    x, y = logistic_regression.load()
    beta = noise.normal(size=x.shape[1])
    chance = expit(x.numpy() @ beta)
    expected = stats.norm.logpdf(beta).sum() + stats.bernoulli(chance).logpmf(y.numpy()).sum()
    assert joint(logistic_regression.model, (x, y), tensors(beta=beta)) == pytest.approx(expected, rel=1e-12)


def test_simulated_responses_follow_coefficients():
    x, y, beta = logistic_regression.simulate(rows=20_000, features=4, seed=1)
    chance = (x @ beta).sigmoid()
    score = (y - chance) @ x / ((chance * (1 - chance)) @ x.square()).sqrt()
    assert score.abs().max() < 5.2  # 1e-6 for four standard normals
    assert ((y - 0.5) @ x).abs().max() > 100
