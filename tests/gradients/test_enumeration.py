"""Exact moments of an estimate, by going through all that it draws."""

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, OneHotCategorical, Uniform

from zoo.gradients._enumeration import joint_values, moments_by_enumeration
from zoo.gradients.graphs._quadrature import Quadrature

DOUBLE = torch.float64


@pytest.fixture
def theta():
    return torch.tensor(0.0, dtype=DOUBLE, requires_grad=True)


def moments(estimate, theta, rules=None, max_outcomes=1000):
    total = moments_by_enumeration(estimate, rules or Quadrature(), [theta], max_outcomes).total
    return total.mean.item(), total.variance.item()


def test_moments_are_those_of_all_samples(theta):
    """Of a number of three values plus twice a bit, drawn if the number is not 0."""

    def estimate(draw):
        number = draw("number", Categorical(probs=torch.tensor([0.5, 0.25, 0.25])))
        bit = draw("bit", Bernoulli(torch.tensor(0.5))) if number else 0
        return theta * (number + 2 * bit)

    values, p = torch.tensor([0.0, 1, 3, 2, 4]), torch.tensor([0.5, 0.125, 0.125, 0.125, 0.125])
    mean = p @ values
    assert moments(estimate, theta) == pytest.approx((mean.item(), (p @ (values - mean) ** 2).item()), abs=1e-7)


def test_moments_integrate_each_element_of_continuous_noise(theta):
    def estimate(draw):
        u = draw("u", Independent(Uniform(torch.zeros(2, dtype=DOUBLE), 1.0), 1))
        return theta * (u > 0.25).double().sum()

    assert moments(estimate, theta, Quadrature({"u": 1}, {"u": [0.25]})) == pytest.approx((1.5, 2 * 3 / 16), abs=1e-12)


def test_joint_values_are_all_combinations_that_are_possible():
    law = OneHotCategorical(probs=torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=DOUBLE))
    support = law.enumerate_support()
    weights = torch.tensor([[0.5, 0.0], [0.5, 1.0]], dtype=DOUBLE)
    values, joint = joint_values(support, weights)
    assert values.tolist() == [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]
    assert joint.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_all_tensors_are_on_the_device_of_the_inputs(dtype):
    theta = torch.zeros((), dtype=dtype, device="cpu", requires_grad=True)
    zeros = torch.zeros(2, dtype=dtype, device="cpu")

    def estimate(draw):
        u = draw("u", Uniform(zeros, zeros + 1))
        return theta * (u.sum() + draw("x", Bernoulli(logits=zeros)).sum() + draw("k", Categorical(logits=zeros)))

    with torch.device("meta"):
        found = moments(estimate, theta, Quadrature({"u": 2}, {"u": [0.5]}))
    assert found == pytest.approx((1 + 1 + 0.5, 2 / 12 + 2 / 4 + 1 / 4), rel=1e-6)


def test_too_many_outcomes_raise_before_they_are_enumerated(theta):
    with pytest.raises(ValueError, match=r"'x' alone has 10\^301 outcomes, more than 1000; .* by sampling"):
        moments(lambda draw: theta * draw("x", Bernoulli(torch.full((1000,), 0.5))).sum(), theta)
