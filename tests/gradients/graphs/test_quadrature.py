"""Quadrature rules against known integrals; their use in programs is tested in test_enumeration."""

import math

import pytest
import torch
from torch.distributions import Exponential, Laplace, Normal, Uniform

from zoo.gradients.graphs._quadrature import Quadrature

DOUBLE = torch.float64


def integral(function, rule):
    return (function(rule.values) * rule.log_weights.exp()).sum(0)


@pytest.mark.parametrize("nodes", [1, 2, 5, 8])
def test_rule_of_n_nodes_is_exact_up_to_degree_2n_minus_1(nodes):
    normal = Quadrature({"x": nodes}).rule("x", Normal(torch.zeros((), dtype=DOUBLE), 1.0))
    uniform = Quadrature({"x": nodes}).rule("x", Uniform(torch.zeros((), dtype=DOUBLE), 1.0))
    for degree in range(2 * nodes):
        moment = 0 if degree % 2 else math.prod(range(1, degree, 2))
        rounding = 1e-12 * math.prod(range(1, degree + 2, 2))
        assert integral(lambda x, k=degree: x**k, normal).item() == pytest.approx(moment, rel=1e-9, abs=rounding)
        assert integral(lambda x, k=degree: x**k, uniform).item() == pytest.approx(1 / (degree + 1), rel=1e-12)
    assert integral(lambda x: x ** (2 * nodes), uniform).item() != pytest.approx(1 / (2 * nodes + 1), rel=1e-12)


@pytest.mark.parametrize("distribution", [Normal, Laplace], ids=lambda distribution: distribution.__name__)
def test_step_functions_are_exact_with_breakpoints_in_any_order(distribution):
    base = distribution(torch.tensor([0.3, -1.0], dtype=DOUBLE), 2.0)
    rule = Quadrature({"x": 1}, {"x": [1.5, -0.5, 1.5]}).rule("x", base)
    assert rule.values.shape == rule.log_weights.shape == (3, 2)
    for breakpoint_ in (-0.5, 1.5):
        expected = base.cdf(torch.full((2,), breakpoint_, dtype=DOUBLE))
        torch.testing.assert_close(integral(lambda x, k=breakpoint_: 1.0 * (x < k), rule), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(integral(lambda x: 1.0 * (x < 0.0), rule), base.cdf(torch.zeros(2, dtype=DOUBLE)))


def test_rule_is_detached_from_the_parameters():
    rate = torch.tensor(2.0, requires_grad=True)
    rule = Quadrature({"x": 4}, {"x": [1.0]}).rule("x", Exponential(rate))
    assert not rule.values.requires_grad
    assert not rule.log_weights.requires_grad


def test_sample_without_quadrature_has_no_rule():
    assert Quadrature({"x": 4}).rule("y", Normal(0.0, 1.0)) is None


def test_name_that_is_never_seen_raises_an_error():
    rules = Quadrature({"x": 4, "y": 4})
    rules.rule("x", Normal(0.0, 1.0))
    rules.rule("z", Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="there is no sample 'y' to integrate; there are 'x', 'z'"):
        rules.check_seen()
    rules.rule("y", Normal(0.0, 1.0))
    rules.check_seen()


def test_breakpoints_need_nodes_and_must_lie_in_the_support():
    with pytest.raises(ValueError, match="breakpoints of 'y' need a number of nodes too"):
        Quadrature({"x": 4}, {"y": [0.0]})
    with pytest.raises(ValueError, match=r"the breakpoints of 'x' must lie within its support, got \[-1.0, 0.5\]"):
        Quadrature({"x": 4}, {"x": [0.5, -1.0]}).rule("x", Uniform(torch.zeros(()), 1.0))
