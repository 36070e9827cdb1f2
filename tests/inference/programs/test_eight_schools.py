import pytest
from scipy import stats

from zoo.inference.programs import eight_schools

pytestmark = pytest.mark.usefixtures("double")


def test_the_joint_density_is_scipys(joint, zoo_data, noise, tensors):
    y, sigma = eight_schools.load(zoo_data)
    mu, tau, trans = noise.normal(), noise.gamma(2), noise.normal(size=3)
    expected = (
        stats.norm(0, 5).logpdf(mu)
        + stats.halfcauchy(scale=5).logpdf(tau)
        + stats.norm.logpdf(trans).sum()
        + stats.norm(mu + tau * trans, sigma.numpy()).logpdf(y.numpy()).sum()
    )
    values = tensors(mu=mu, tau=tau, theta_trans=trans)
    assert joint(eight_schools.model, (y, sigma), values) == pytest.approx(expected, rel=1e-12)
    quantities = eight_schools.quantities({name: value[None] for name, value in values.items()})
    assert quantities[0].tolist() == pytest.approx([*(mu + tau * trans), mu, tau])
