"""Tensors of a distribution, and whether its support depends on parameters."""

import subprocess
import sys

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Distribution,
    Exponential,
    Gumbel,
    Independent,
    LogNormal,
    MixtureSameFamily,
    Normal,
    Pareto,
    RelaxedBernoulli,
    TransformedDistribution,
    Uniform,
    Weibull,
)
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from zoo.gradients.graphs._distributions import support_depends_on_parameters, tensors_of

ONE, THETA = torch.ones(()), torch.ones((), requires_grad=True)


def mixture(logits, means):
    return MixtureSameFamily(torch.distributions.Categorical(logits=logits), Normal(means, 1.0))


class TestTensorsOf:
    def test_returns_all_tensors_of_a_distribution(self):
        loc, scale = torch.zeros(2), torch.ones(2)
        held = tensors_of(Independent(Normal(loc, scale), 1))
        assert {tensor.data_ptr() for tensor in held} == {loc.data_ptr(), scale.data_ptr()}

    def test_includes_nested_distributions(self):
        logits, means = torch.zeros(2), torch.randn(2)
        held = tensors_of(mixture(logits, means))
        assert any(tensor.data_ptr() == means.data_ptr() for tensor in held)

    def test_transforms_without_parameters_add_no_tensors(self):
        distribution = LogNormal(torch.zeros(2), torch.ones(2))
        distribution.log_prob(torch.ones(2))  # which caches an inverse
        held = tensors_of(distribution)
        assert {tensor.data_ptr() for tensor in held} == {distribution.loc.data_ptr(), distribution.scale.data_ptr()}

    @pytest.mark.parametrize(
        "distribution",
        [
            TransformedDistribution(Normal(ONE, ONE), AffineTransform(THETA, 2.0)),
            TransformedDistribution(Normal(ONE, ONE), SigmoidTransform(cache_size=1)),
            Gumbel(ONE, ONE),
        ],
        ids=["parameters", "memory", "subclass"],
    )
    def test_is_unknown_for_transforms_with_parameters_or_cache(self, distribution):
        assert tensors_of(distribution) is None

    def test_is_unknown_for_distributions_of_other_packages(self):
        class Mine(Distribution):
            arg_constraints = {}  # noqa: RUF012

        assert tensors_of(Mine(validate_args=False)) is None
        distribution = Bernoulli(0.5)
        distribution.log_prob = lambda value: value
        assert tensors_of(distribution) is None


class TestSupport:
    @pytest.mark.parametrize(
        "distribution",
        [
            Uniform(0.0, THETA),
            Independent(Uniform(torch.zeros(2), THETA.expand(2)), 1),
            Pareto(THETA, 1.0),
            TransformedDistribution(Uniform(0.0, 1.0), [AffineTransform(0.0, THETA)]),
            TransformedDistribution(Exponential(1.0), [AffineTransform(THETA, 1.0)]),
            TransformedDistribution(Uniform(0.0, THETA), [AffineTransform(0.0, 2.0)]),
        ],
        ids=["uniform", "several", "pareto", "scaled", "shifted", "base"],
    )
    def test_depends_on_parameters(self, distribution):
        assert support_depends_on_parameters(distribution)

    @pytest.mark.parametrize(
        "distribution",
        [
            Normal(THETA, THETA),
            LogNormal(THETA, 1.0),
            Gumbel(THETA, 1.0),
            Weibull(THETA, THETA),
            RelaxedBernoulli(ONE, logits=THETA),
            TransformedDistribution(Normal(0.0, 1.0), [AffineTransform(THETA, THETA)]),
            TransformedDistribution(Uniform(0.0, 1.0), [SigmoidTransform().inv, AffineTransform(THETA, THETA)]),
            TransformedDistribution(Uniform(0.0, 1.0), [AffineTransform(0.0, 2.0)]),
        ],
        ids=["normal", "log normal", "gumbel", "weibull", "relaxed", "affine", "logistic", "fixed"],
    )
    def test_is_constant(self, distribution):
        assert not support_depends_on_parameters(distribution)


PROGRAM = """
import torch
from torch.distributions import Bernoulli, Normal, constraints
from zoo.gradients import trace

def program(graph, use):
    x = graph.sample("x", Bernoulli(0.5))
    use(x)
    graph.cost("f", 1.0)

print(*trace(program, lambda x: Normal(x, x + 1)).influences("x"))
print(*trace(program, lambda x: bool(constraints.positive.check(x))).influences("x"))
"""


def test_validation_is_suspended_for_distributions_but_not_for_the_program():
    """In a separate process, since type checkers add frames between a torch function and its caller."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "f"]
