import pytest
from scipy import stats

from zoo.inference.programs import _beta_bernoulli as beta_bernoulli

pytestmark = pytest.mark.usefixtures("double")


def test_joint_density_of_beta_bernoulli_equals_scipy(joint, noise, tensors):
    (flips,) = beta_bernoulli.load()
    assert flips.tolist() == [1] * 6 + [0] * 4
    fairness = noise.beta(2, 2)
    expected = stats.beta(10, 10).logpdf(fairness) + stats.bernoulli(fairness).logpmf(flips.numpy()).sum()
    assert joint(beta_bernoulli.model, (flips,), tensors(fairness=fairness)) == pytest.approx(expected, rel=1e-12)


def test_reference_of_beta_bernoulli_is_exact_posterior():
    reference = beta_bernoulli.reference()
    exact = stats.beta(16, 14)
    assert reference.mean.item() == pytest.approx(exact.mean(), rel=1e-12)
    assert reference.sd.item() == pytest.approx(exact.std(), rel=1e-12)
