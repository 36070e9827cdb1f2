import pytest
from scipy import stats

from zoo.inference.programs import _kidiq as kidiq

pytestmark = pytest.mark.usefixtures("double")


def test_kidiq_has_flat_coefficients(joint, zoo_data, noise, tensors):
    x, y = kidiq.load(zoo_data)
    assert x.tolist() == [[1, 1], [1, 1], [1, 0], [1, 1], [1, 0]]
    beta, sigma = noise.normal(80, 10, size=2), noise.gamma(20)
    expected = stats.halfcauchy(scale=2.5).logpdf(sigma) + stats.norm(x.numpy() @ beta, sigma).logpdf(y.numpy()).sum()
    assert joint(kidiq.model, (x, y), tensors(beta=beta, sigma=sigma)) == pytest.approx(expected, rel=1e-12)
