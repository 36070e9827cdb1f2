"""Exact expectation of a program's cost, against closed forms."""

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    Exponential,
    Gumbel,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    Multinomial,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    TransformedDistribution,
    Uniform,
)
from torch.distributions.transforms import AffineTransform, SigmoidTransform

from zoo.gradients.graphs import Pathwise, expected_cost, outcomes, trace
from zoo.gradients.graphs._provenance import provenance

pytestmark = pytest.mark.usefixtures("without_type_checks")  # for speed

DOUBLE = torch.float64
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def number(value):
    return torch.tensor(value, dtype=DOUBLE)


def derivatives(scalar, theta, order):
    """All derivatives of a scalar up to some order, flattened."""
    found, last = [scalar.detach()[None]], scalar[None]
    for _ in range(order):
        rows = [torch.autograd.grad(d, theta, create_graph=True, materialize_grads=True)[0] for d in last]
        last = torch.cat([row.flatten() for row in rows])
        last = last + 0 * theta.sum()  # keeps constants differentiable
        found.append(last.detach())
    return torch.cat(found)


def assert_same(one, other, theta, order=3):
    torch.testing.assert_close(derivatives(one, theta, order), derivatives(other, theta, order), rtol=0, atol=1e-9)


def of_one(distribution, cost):
    """A program with one sample, whose distribution and cost are functions."""

    def program(graph, theta):
        graph.cost("f", cost(graph.sample("x", distribution(theta)), theta))

    return program


class Halved(Bernoulli):
    """A distribution with half the density that it should have."""

    def log_prob(self, value):
        return super().log_prob(value) - math.log(2)


class TestDiscreteSamples:
    """Values and all derivatives up to the third equal those of the closed form."""

    def test_bernoulli(self, theta):
        def closed_form(theta):
            p = torch.sigmoid(theta[0])
            return p * (1 - theta[1]) ** 2 + (1 - p) * theta[1] ** 2

        program = of_one(lambda t: Bernoulli(logits=t[0]), lambda x, t: (x - t[1]) ** 2)
        assert_same(expected_cost(program, theta), closed_form(theta), theta)

    def test_categorical(self, theta):
        program = of_one(lambda t: Categorical(logits=t), lambda x, t: t[x] * (x + 1) ** 2)
        closed_form = (theta.softmax(0) * theta * number([1, 4, 9])).sum()
        assert_same(expected_cost(program, theta), closed_form, theta)

    def test_one_hot_categorical(self, theta):
        program = of_one(lambda t: OneHotCategorical(logits=t), lambda x, t: (x @ t).exp())
        assert_same(expected_cost(program, theta), (theta.softmax(0) * theta.exp()).sum(), theta)

    def test_binomial(self, theta):
        program = of_one(lambda t: Binomial(5, logits=t[0]), lambda x, t: t[1] * x**2)
        p = torch.sigmoid(theta[0])
        assert_same(expected_cost(program, theta), theta[1] * (5 * p * (1 - p) + 25 * p**2), theta)

    def test_sampled_number_of_trials(self, theta):
        def program(graph, theta):
            trials = graph.sample("trials", Categorical(logits=theta))
            graph.cost("f", graph.sample("x", Binomial(trials + 1, logits=theta[1])) ** 2)

        p, n = torch.sigmoid(theta[1]), number([1, 2, 3])
        closed_form = (theta.softmax(0) * (n * p * (1 - p) + (n * p) ** 2)).sum()
        assert len(list(outcomes(program, theta))) == 2 + 3 + 4
        assert_same(expected_cost(program, theta), closed_form, theta)

    def test_joint_outcomes_of_all_elements(self, theta):
        """Var[Σ x] = Σ p (1 - p), over the product of the elements' values, in event and in batch dimensions."""
        p = torch.sigmoid(theta)
        mean, variance = p.sum(), (p * (1 - p)).sum()
        for distribution in (lambda t: Bernoulli(logits=t), lambda t: Independent(Bernoulli(logits=t), 1)):
            program = of_one(distribution, lambda x, t: x.sum() ** 2)
            assert len(list(outcomes(program, theta))) == 8
            assert_same(expected_cost(program, theta), variance + mean**2, theta)

    def test_elements_with_event_dimensions(self, theta):
        """Two vectors of one of three bits: P(equal) = Σ p q."""

        def program(graph, theta):
            x = graph.sample("x", OneHotCategorical(logits=torch.stack([theta, theta.flip(0) ** 2])))
            graph.cost("equal", x[0] @ x[1])

        assert len(list(outcomes(program, theta))) == 9
        assert_same(expected_cost(program, theta), theta.softmax(0) @ (theta.flip(0) ** 2).softmax(0), theta)

    def test_outcomes_are_distinct_and_probabilities_sum_to_1(self, programs, theta):
        assert len(list(outcomes(programs["nvil_chain"], theta))) == 4**3
        assert len(list(outcomes(programs["random_length"], theta))) == 5
        assert len(list(outcomes(programs["recursion"], theta))) == 1 + 4
        for name in ("nvil_chain", "random_length", "recursion"):
            found = list(outcomes(programs[name], theta))
            assert sum(outcome.log_prob.exp() for outcome in found).item() == pytest.approx(1, abs=1e-12)
            values = {tuple((k, *v.flatten().tolist()) for k, v in outcome.values.items()) for outcome in found}
            assert len(values) == len(found)

    def test_empty_sample_has_one_outcome(self, theta):
        program = of_one(lambda t: Bernoulli(logits=t[:0]), lambda x, t: x.sum() + t[0])
        assert len(list(outcomes(program, theta))) == 1
        assert_same(expected_cost(program, theta), theta[0] * 1, theta, order=1)

    def test_nested_expectation(self, theta):
        """The expected cost of an inner program, which depends on the outer samples, is a cost of the outer one."""

        def inner(graph, x, theta):
            y = graph.sample("y", Independent(Bernoulli(logits=x * theta[:2]), 1))
            graph.cost("g", y.prod() * 3)

        def outer(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta[2]))
            graph.cost("f", expected_cost(inner, x, theta))

        assert trace(outer, theta).influences("x") == {"f"}
        p = torch.sigmoid(theta[2])
        closed_form = 3 * (p * torch.sigmoid(theta[:2]).prod() + (1 - p) / 4)
        assert_same(expected_cost(outer, theta), closed_form, theta)


class TestImpossibleValues:
    """Outcomes of probability 0 contribute nothing, and no NaN."""

    def test_value_and_gradient_stay_finite(self, theta):
        def program(graph, theta):
            logits = torch.cat([theta[:2], number([-math.inf])])
            x = graph.sample("x", Categorical(logits=logits))
            graph.cost("f", (x - theta[2]) ** 2)

        assert len(list(outcomes(program, theta))) == 2
        p = theta[:2].softmax(0)
        assert_same(expected_cost(program, theta), (p * (number([0, 1]) - theta[2]) ** 2).sum(), theta)

    def test_value_and_gradient_stay_finite_if_one_batch_element_is_impossible(self):
        theta = number([[0.2, -0.3, 0.5], [0.1, 0.4, -0.2]]).requires_grad_()

        def program(graph, theta):
            allowed = torch.tensor([[True, True, False], [False, True, True]])
            x = graph.sample("x", Categorical(logits=theta.where(allowed, -math.inf)))
            graph.cost("f", (x + 1.0) ** 2 * theta[:, 0])

        p, q = theta[0, :2].softmax(0), theta[1, 1:].softmax(0)
        closed_form = theta[0, 0] * (p @ number([1, 4])) + theta[1, 0] * (q @ number([4, 9]))
        assert_same(expected_cost(program, theta, batch_dims=1), closed_form, theta, order=2)

    def test_dead_ends_pass_through_exception_handlers(self, theta):
        def program(graph, theta):
            try:
                x = graph.sample("x", Categorical(logits=torch.cat([theta[:1], number([-math.inf])])))
            except Exception:
                x = number(100.0)
            graph.cost("f", (x + 1) * theta[0])

        assert len(list(outcomes(program, theta))) == 1
        assert_same(expected_cost(program, theta), theta[0] * 1, theta)

    def test_impossible_branches_are_not_run(self, theta):
        def program(graph, theta):
            x = graph.sample("x", Categorical(logits=torch.cat([theta[:1], number([-math.inf])])))
            if x.item():
                raise RuntimeError("went where nothing goes")
            graph.cost("f", x + theta[0])

        assert_same(expected_cost(program, theta), theta[0] * 1, theta)


class TestTotalProbability:
    """The probabilities of all outcomes must sum to 1."""

    @pytest.mark.parametrize(
        ("distribution", "total"),
        [
            (lambda t: dist.Bernoulli(logits=t[0]).mask(torch.tensor(False)), "2"),
            (lambda t: dist.Categorical(logits=t).mask(torch.tensor(False)), "3"),
            (lambda t: Halved(logits=t[0]), r"0\.5"),
            (lambda t: dist.Delta(t[0].detach(), log_density=number(2.0).log()), "2"),
        ],
        ids=["masked bit", "masked category", "halved", "weighted point"],
    )
    def test_total_other_than_1_raises_an_error(self, theta, distribution, total):
        with pytest.raises(ValueError, match=rf"the probabilities of all outcomes sum to {total}, not to 1"):
            expected_cost(of_one(distribution, lambda x, t: 5.0 * x), theta)

    def test_total_other_than_1_in_one_batch_element_raises_an_error(self):
        theta = number([0.2, -0.3]).requires_grad_()
        program = of_one(lambda t: dist.Bernoulli(logits=t).mask(torch.tensor([True, False])), lambda x, t: x * t)
        with pytest.raises(ValueError, match="sum to 2, not to 1"):
            expected_cost(program, theta, batch_dims=1)

    def test_wrong_total_without_check_is_a_wrong_expectation(self, theta, monkeypatch):
        monkeypatch.setattr("zoo.gradients.graphs._enumeration._check_total", lambda *_: None)
        masked = of_one(lambda t: dist.Bernoulli(logits=t[0]).mask(torch.tensor(False)), lambda x, t: 5.0 * x)
        assert expected_cost(masked, theta) == 5.0
        assert expected_cost(masked, theta) != 5.0 * theta[0].sigmoid()

    def test_total_with_impossible_and_integrated_values_is_1(self, theta):
        def program(graph, theta):
            k = graph.sample("k", Categorical(logits=torch.cat([theta[:2], number([-math.inf])])))
            graph.cost("f", k * graph.sample("z", Normal(theta[2], number(1.0))))

        p = theta[:2].softmax(0)
        assert_same(expected_cost(program, theta, quadrature={"z": 8}), p[1] * theta[2], theta)


class TestPointMass:
    """Pyro's ``Delta`` has one value, through which its gradient flows."""

    def test_point_mass_has_exact_gradient(self, theta):
        def program(graph, theta):
            x = graph.sample("x", dist.Delta(2 * theta[0]))
            y = graph.sample("y", Bernoulli(logits=x + theta[1]))
            graph.cost("f", y * x**2 * theta[2])

        closed_form = (2 * theta[0] + theta[1]).sigmoid() * (2 * theta[0]) ** 2 * theta[2]
        assert_same(expected_cost(program, theta), closed_form, theta)
        assert len(list(outcomes(program, theta))) == 2

    def test_point_mass_with_several_elements_is_one_outcome(self, theta):
        program = of_one(lambda t: dist.Delta(t, event_dim=1), lambda x, t: (x * t).sum())
        assert len(list(outcomes(program, theta))) == 1
        assert_same(expected_cost(program, theta), theta.square().sum(), theta)

    def test_point_mass_needs_pathwise_gradient(self, theta):
        program = of_one(lambda t: dist.Delta(t[0]), lambda x, t: x**3)
        with pytest.raises(ValueError, match=r"the support of sample 'x' \(Delta\) depends on its parameters"):
            trace(program, theta)
        surrogate = trace(program, theta, estimators={"x": Pathwise()}).surrogate()
        assert_same(surrogate, theta[0] ** 3, theta, order=1)

    def test_detached_point_mass_loses_its_gradient(self, theta, monkeypatch):
        program = of_one(lambda t: dist.Delta(t[0]), lambda x, t: x**3 + 0 * t.sum())
        monkeypatch.setattr(dist.Delta, "mean", property(lambda distribution: distribution.v.detach()))
        (gradient,) = torch.autograd.grad(expected_cost(program, theta), theta)
        assert not gradient.any()


def cost_of(outcome):
    """Either interpreter: the expected cost, or the cost of a traced run."""
    return outcome if isinstance(outcome, torch.Tensor) else outcome.costs["f"]


BOTH = pytest.mark.parametrize("interpret", [expected_cost, trace], ids=lambda interpret: interpret.__name__)


@BOTH
class TestProbabilityOf0Or1:
    """Torch clamps such a probability and loses its gradient, although E[x] = p has slope 1."""

    @pytest.mark.parametrize(
        "distribution",
        [
            lambda p: Bernoulli(p),
            lambda p: Bernoulli(1 - p),
            lambda p: Bernoulli(p.expand(2)).expand((3, 2)),
            lambda p: Independent(Bernoulli(p.expand(2)), 1),
            lambda p: Categorical(torch.stack([p, 1 - p])),
            lambda p: OneHotCategorical(torch.stack([p, 1 - p])),
            lambda p: Binomial(2, p),
            lambda p: dist.Bernoulli(p),
            lambda p: dist.Bernoulli(p).mask(True),
        ],
        ids=["0", "1", "expanded", "several", "category", "one-hot", "binomial", "of Pyro", "masked"],
    )
    def test_probability_0_or_1_that_depends_on_parameters_raises_an_error(self, interpret, distribution):
        p = number(0.0).requires_grad_()
        with pytest.raises(ValueError, match=r"a probability of sample 'x' \(.*\) is 0 or 1, where .* pass logits"):
            interpret(of_one(distribution, lambda x, _: x.sum()), p)

    def test_constant_probability_0_or_1_is_accepted(self, interpret):
        theta = number(0.7).requires_grad_()
        program = of_one(lambda _: Bernoulli(number([0.0, 1.0])), lambda x, t: t * x.sum())
        assert cost_of(interpret(program, theta)).item() == pytest.approx(0.7)

    @pytest.mark.parametrize("logit", [-40.0, 40.0])
    def test_saturated_sigmoid_is_accepted(self, interpret, logit):
        theta = number(logit).requires_grad_()
        program = of_one(lambda t: Bernoulli(t.sigmoid()), lambda x, t: x)
        assert cost_of(interpret(program, theta)).item() == pytest.approx(float(logit > 0))


def test_probability_of_0_without_check_loses_its_gradient(monkeypatch):
    monkeypatch.setattr("zoo.gradients.graphs._distributions.clamps_probability", lambda distribution: False)
    p = number(0.0).requires_grad_()
    (gradient,) = torch.autograd.grad(expected_cost(of_one(Bernoulli, lambda x, _: 3 * x), p), p)
    assert gradient != 3


class TestBatch:
    def test_batch_elements_share_outcomes(self):
        theta = torch.randn(100, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
        passes = 0

        def program(graph, theta):
            nonlocal passes
            passes += 1
            x = graph.sample("x", Bernoulli(logits=theta))  # two elements of one node
            graph.cost("f", ((x - theta) ** 2).sum(-1) * (x[..., 0] + 1))

        together = expected_cost(program, theta, batch_dims=1)
        assert passes == 4 + 2  # the first and the last are run twice
        apart = torch.stack([expected_cost(program, one) for one in theta]).sum()
        torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)
        gradients = [torch.autograd.grad(total, theta)[0] for total in (together, apart)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)

    def test_two_batch_dimensions(self):
        theta = number([[0.2, -0.3, 0.5], [0.1, 0.4, -0.2]]).requires_grad_()
        program = of_one(lambda t: Bernoulli(logits=t), lambda x, t: x * t)
        assert len(list(outcomes(program, theta, batch_dims=2))) == 2
        assert_same(expected_cost(program, theta, batch_dims=2), (torch.sigmoid(theta) * theta).sum(), theta, order=2)

    def test_batch_may_be_empty(self):
        theta = torch.zeros(0, dtype=DOUBLE, requires_grad=True)
        for distribution, quadrature in ((Bernoulli(logits=theta), None), (Normal(theta, 1.0), {"x": 3})):
            program = of_one(lambda t, distribution=distribution: distribution, lambda x, t: x * t)
            total = expected_cost(program, theta, batch_dims=1, quadrature=quadrature)
            assert total == 0
            assert torch.autograd.grad(total, theta)[0].shape == (0,)

    def test_missing_batch_dimension_raises_an_error(self, theta):
        program = of_one(lambda t: Bernoulli(logits=t[0]), lambda x, t: x)
        with pytest.raises(ValueError, match=r"sample 'x' has shape \(\), which does not begin with the 1 batch"):
            expected_cost(program, theta, batch_dims=1)


class TestDeviceAndDtype:
    """Intermediate tensors have the device and dtype of the samples."""

    @pytest.fixture(params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
    def device(self, request):
        """Device of the samples; the default is the meta device, on which misplaced tensors are useless."""
        with torch.device("meta"):
            yield request.param

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_device_and_dtype_are_those_of_the_parameters(self, device, dtype):
        theta = torch.tensor([0.3, -0.2], dtype=dtype, device=device, requires_grad=True)
        one = torch.ones((), dtype=dtype, device=device)

        def program(graph, theta):
            x = graph.sample("x", Categorical(logits=theta))
            y = graph.sample("y", Independent(Normal(theta, one), 1))
            z = graph.sample("z", Uniform(-one, one))
            w = graph.sample("w", Normal(theta[0] * x, one))
            graph.cost("f", (x + y.sum() + z.abs() + (w > 0)) * theta[0])

        total = expected_cost(program, theta, quadrature={"y": 2, "z": 2, "w": 4}, breakpoints={"z": [0.0], "w": [0.0]})
        (gradient,) = torch.autograd.grad(total, theta)
        assert total.isfinite()
        for found in (total, gradient):
            assert (found.device.type, found.dtype) == (device, dtype)


class TestQuadrature:
    """Numerical integrals over continuous variables, against closed forms; derivatives, too."""

    def test_normal_is_exact_for_polynomials(self, theta):
        program = of_one(lambda t: Normal(t[0], t[1].exp()), lambda x, t: (x - t[2]) ** 4)
        mean, variance = theta[0] - theta[2], (2 * theta[1]).exp()
        closed_form = mean**4 + 6 * mean**2 * variance + 3 * variance**2
        assert_same(expected_cost(program, theta, quadrature={"x": 12}), closed_form, theta)

    def test_several_normals(self, theta):
        program = of_one(lambda t: Independent(Normal(t, t[1].exp()), 1), lambda x, t: (x.sum() * t[0]) ** 2)
        closed_form = theta[0] ** 2 * (theta.sum() ** 2 + 3 * (2 * theta[1]).exp())
        assert_same(expected_cost(program, theta, quadrature={"x": 6}), closed_form, theta, order=2)

    def test_normal_that_depends_on_a_bit(self, theta):
        def program(graph, theta):
            z = graph.sample("z", Bernoulli(logits=theta[0]))
            x = graph.sample("x", Normal(theta[1] + z, 1.0))
            graph.cost("f", (2 * x).sin())

        p, damping = torch.sigmoid(theta[0]), math.exp(-2)
        closed_form = damping * (p * (2 * theta[1] + 2).sin() + (1 - p) * (2 * theta[1]).sin())
        assert_same(expected_cost(program, theta, quadrature={"x": 32}), closed_form, theta, order=2)

    @pytest.mark.parametrize("size", [(), (2,)])
    def test_quadrature_with_batch_dimensions(self, size):
        theta = torch.linspace(-1, 1, 5 * math.prod(size)).to(DOUBLE).reshape(5, *size).requires_grad_()
        program = of_one(lambda t: Normal(t, 0.5), lambda x, t: (x**2).flatten(1).sum(1) if size else x**2)
        closed_form = (theta**2 + 0.25).sum()
        total = expected_cost(program, theta, batch_dims=1, quadrature={"x": 4})
        assert_same(total, closed_form, theta, order=2)

    @pytest.mark.parametrize(
        ("distribution", "cost", "closed_form", "tolerance"),
        [
            (
                lambda t: Uniform(number(-1.0), number(3.0)),
                lambda x, t: (x - t[0]) ** 2,
                lambda t: (1 - t[0]) ** 2 + 4 / 3,
                1e-12,
            ),
            (lambda t: Exponential(t[0]), lambda x, t: (-x).exp(), lambda t: t[0] / (1 + t[0]), 1e-4),
            (
                lambda t: LogNormal(t[1], t[2]),
                lambda x, t: x.log().sin(),
                lambda t: (-(t[2] ** 2) / 2).exp() * t[1].sin(),
                1e-4,
            ),
            (lambda t: Laplace(t[1], t[2]), lambda x, t: x.cos(), lambda t: t[1].cos() / (1 + t[2] ** 2), 1e-3),
            (lambda t: Gumbel(t[1], 1.0), lambda x, t: (-(-x).exp()).exp(), lambda t: 1 / (1 + (-t[1]).exp()), 1e-4),
        ],
        ids=["uniform", "exponential", "log-normal", "laplace", "gumbel"],
    )
    def test_other_distributions_use_quantiles(self, theta, distribution, cost, closed_form, tolerance):
        total, truth = expected_cost(of_one(distribution, cost), theta, quadrature={"x": 64}), closed_form(theta)
        torch.testing.assert_close(total, truth, rtol=0, atol=tolerance)
        gradients = [torch.autograd.grad(value, theta, allow_unused=True)[0] for value in (total, truth)]
        torch.testing.assert_close(*gradients, rtol=0, atol=30 * tolerance)

    def test_gradient_is_of_the_density_not_of_the_nodes(self, theta):
        """The pathwise gradient of a step function is 0; the gradient comes from the density."""
        program = of_one(lambda t: Uniform(number(0.0), number(1.0)), lambda x, t: x)
        assert not expected_cost(program, theta, quadrature={"x": 2}).requires_grad
        (outcome, *_) = outcomes(of_one(lambda t: Normal(t[0], 1.0), lambda x, t: x), theta, quadrature={"x": 3})
        assert not outcome.values["x"].requires_grad
        assert not outcome.cost.requires_grad
        assert outcome.log_prob.requires_grad

    def test_normal_is_split_at_breakpoints(self, theta):
        """P(x > 0.1) = Φ(t - 0.1); across the breakpoint the error is in the second digit."""
        program = of_one(lambda t: Normal(t[0], 1.0), lambda x, t: (x > 0.1).double())
        closed_form = Normal(number(0.0), 1.0).cdf(theta[0] - 0.1)
        assert_same(expected_cost(program, theta, quadrature={"x": 32}, breakpoints={"x": [0.1]}), closed_form, theta)
        across = expected_cost(program, theta, quadrature={"x": 32})
        assert (derivatives(across, theta, 1) - derivatives(closed_form, theta, 1)).abs().max() > 1e-2

    def test_breakpoints_split_each_element(self):
        """A uniform sample with its own bounds in each batch element; |x| is piecewise linear."""
        width = number([[1.0, 2.0], [3.0, 0.5]])
        scale = number([1.0, -2.0]).requires_grad_()

        def program(graph, scale):
            x = graph.sample("x", Independent(Uniform(-width, 2 * width), 1))
            graph.cost("f", scale * x.abs().sum(-1))

        total = expected_cost(program, scale, batch_dims=1, quadrature={"x": 1}, breakpoints={"x": [0.0]})
        assert_same(total, (scale * (5 / 6 * width).sum(-1)).sum(), scale, order=1)

    def test_distribution_without_mean_is_integrated(self, theta):
        logistic = TransformedDistribution(Uniform(number(0.0), number(1.0)), [SigmoidTransform().inv])
        program = of_one(lambda t: logistic, lambda x, t: (x > 1.0).double() * t[0])
        total = expected_cost(program, theta, quadrature={"x": 1}, breakpoints={"x": [1.0]})
        assert_same(total, theta[0] * torch.sigmoid(number(-1.0)), theta, order=1)

    def test_support_that_depends_on_parameters_raises_an_error(self, theta):
        program = of_one(lambda t: Uniform(number(0.0), t[0]), lambda x, t: x)
        with pytest.raises(ValueError, match=r"the support of sample 'x' \(Uniform\) depends on its parameters"):
            expected_cost(program, theta, quadrature={"x": 8})


class TestErrors:
    @pytest.mark.parametrize(
        ("distribution", "quadrature", "sentence"),
        [
            (Normal(0.0, 1.0), None, r"sample 'x' \(Normal\) is continuous .* integrate it with quadrature={'x': 32}"),
            (Normal(0.0, 1.0), {"y": 8}, r"sample 'x' \(Normal\) is continuous"),
            (Normal(0.0, 1.0), {"x": 0}, "quadrature needs at least one node for 'x', got 0"),
            (Poisson(3.0), None, r"the values of sample 'x' \(Poisson\) cannot be enumerated"),
            (Poisson(3.0), {"x": 8}, r"sample 'x' \(Poisson\) has no quantile function in torch, and so no quadrature"),
            (
                MultivariateNormal(torch.zeros(2), torch.eye(2)),
                {"x": 8},
                r"the elements of sample 'x' \(MultivariateNormal\) depend on each other: there is no quadrature",
            ),
            (
                Binomial(torch.tensor([1.0, 2.0]), torch.tensor(0.5)),
                None,
                r"the values of sample 'x' \(Binomial\) cannot be enumerated: Inhomogeneous total count",
            ),
        ],
    )
    def test_distribution_that_cannot_be_enumerated_is_named(self, theta, distribution, quadrature, sentence):
        program = of_one(lambda t: distribution, lambda x, t: x.sum())
        with pytest.raises(ValueError, match=sentence) as error:
            expected_cost(program, theta, quadrature=quadrature)
        assert "\n" not in str(error.value)

    def test_discrete_distribution_is_not_called_continuous(self, theta):
        halves = MixtureSameFamily(Categorical(torch.ones(2)), Bernoulli(torch.tensor([0.1, 0.2])))
        doubled = TransformedDistribution(Bernoulli(torch.tensor(0.5)), [AffineTransform(0.0, 2.0)])
        for distribution in (Multinomial(3, torch.ones(2)), halves, doubled, Independent(doubled.expand((2,)), 1)):
            with pytest.raises(
                ValueError, match=r"the values of sample 'x' .* cannot be enumerated: it does not implement enum"
            ):
                expected_cost(of_one(lambda t, distribution=distribution: distribution, lambda x, t: x.sum()), theta)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"quadrature": {"typo": 3}}, "there is no sample 'typo' to integrate; there are 'first', 'second'"),
            ({"quadrature": {"typo": 3}, "breakpoints": {"typo": [0.0]}}, "there is no sample 'typo' to integrate"),
            (
                {"breakpoints": {"typo": [0.0]}},
                "breakpoints of 'typo' need a number of nodes too: quadrature={'typo': 16}",
            ),
        ],
    )
    def test_unknown_name_lists_the_known_ones(self, theta, options, sentence):
        def program(graph, theta):
            if graph.sample("first", Bernoulli(logits=theta[0])):
                graph.sample("second", Normal(theta[1], 1.0))
            graph.cost("f", theta[2])

        with pytest.raises(ValueError, match=sentence):
            expected_cost(program, theta, **{**options, "quadrature": {"second": 3} | options.get("quadrature", {})})
        expected_cost(program, theta, quadrature={"second": 3})

    def test_too_many_outcomes_are_counted_in_the_error(self, programs, theta):
        with pytest.raises(
            ValueError,
            match=r"there are more than 63 outcomes: if all runs are as long as this one there are 64, "
            r"4 \(h1\) · 4 \(h2\) · 4 \(h3\); increase max_outcomes",
        ):
            expected_cost(programs["nvil_chain"], theta, max_outcomes=63)
        expected_cost(programs["nvil_chain"], theta, max_outcomes=64)

    def test_sample_with_too_many_outcomes_fails_in_the_first_run(self, theta):
        began = []

        def program(graph, theta):
            began.append(None)
            x = graph.sample("x", Bernoulli(logits=theta[0].expand(20_000)))
            graph.cost("f", x.sum())

        with pytest.raises(ValueError, match=r"'x' alone has 10\^6021 outcomes, more than 100000; increase"):
            expected_cost(program, theta)
        assert len(began) == 1

    def test_long_program_fails_early_with_a_short_message(self, theta):
        began = []

        def program(graph, theta):
            began.append(None)
            graph.cost("f", sum(graph.sample(f"x{k:02}", Bernoulli(logits=theta[0])) for k in range(30)))

        with pytest.raises(
            ValueError,
            match=r"there may be more than 100000 outcomes: if all runs are as long as this one there are 1073741824, "
            r"2 \(x00\) · 2 \(x01\) · 2 \(x02\) · 2 \(x03\) · 2 \(x04\) · …; increase max_outcomes",
        ):
            expected_cost(program, theta)
        assert len(began) < 300

    def test_long_program_with_few_outcomes_is_accepted(self, theta):
        def stopping(graph, theta):
            for step in range(17):
                if graph.sample(f"stop{step}", Bernoulli(logits=theta[0])):
                    break
            graph.cost("f", theta[1])

        def certain(graph, theta):
            ones = [graph.sample(f"x{k}", Categorical(logits=number([-math.inf, 0.0]))) for k in range(18)]
            graph.cost("f", sum(ones) * theta[0])

        assert len(list(outcomes(stopping, theta))) == 18
        assert_same(expected_cost(stopping, theta), theta[1] * 1, theta, order=1)
        assert len(list(outcomes(certain, theta))) == 1
        assert_same(expected_cost(certain, theta), 18 * theta[0], theta, order=1)

    def test_outcomes_are_counted_not_multiplied(self, theta):
        def program(graph, theta):
            if graph.sample("x", Bernoulli(logits=theta[0])):
                graph.sample("y", Bernoulli(logits=theta))
            graph.cost("f", theta[1])

        assert len(list(outcomes(program, theta, max_outcomes=9))) == 1 + 8
        with pytest.raises(ValueError, match=r"there are more than 8 outcomes: .* there are 16, 2 \(x\) · 8 \(y\)"):
            expected_cost(program, theta, max_outcomes=8)


class TestNondeterministicProgram:
    """It has no exact expectation, and raises an error in one sentence with the remedy."""

    SENTENCE = (
        "the program is not deterministic .* draw all random numbers with graph.sample, or before the program is called"
    )

    def refused(self, program, theta):
        with pytest.raises(ValueError, match=self.SENTENCE) as error:
            expected_cost(program, theta)
        assert "\n" not in str(error.value)

    def test_own_random_numbers_raise_an_error(self, theta):
        def noisy(x, theta):
            return x * torch.rand(())

        self.refused(of_one(lambda t: Bernoulli(logits=t[0]), noisy), theta)

    def test_sample_size_that_changes_raises_an_error(self, theta):
        calls = itertools.count()
        self.refused(of_one(lambda t: Categorical(t[: 3 - next(calls) % 2].softmax(0)), lambda x, t: x), theta)

    def test_sample_names_that_change_raise_an_error(self, theta):
        calls = itertools.count()

        def program(graph, theta):
            graph.cost("f", graph.sample(f"x{next(calls) % 2}", Bernoulli(logits=theta[0])))

        self.refused(program, theta)

    def test_program_that_ends_early_raises_an_error(self, theta):
        calls = itertools.count()

        def program(graph, theta):
            graph.sample("x", Bernoulli(logits=theta[0]))
            if next(calls) == 0:
                graph.sample("y", Bernoulli(logits=theta[0]))
            graph.cost("f", theta[1])

        self.refused(program, theta)

    def test_draws_between_runs_are_accepted(self, theta):
        program = of_one(lambda t: Bernoulli(logits=t[0]), lambda x, t: x * t[1])
        assert [torch.rand(()) >= 0 for _ in outcomes(program, theta)] == [True, True]


# The reference's two-state model: z ~ B(1/2), x | z ~ N(3z - 1, 1), seen at x = 1, with q(z) = B(σ(φ)) at φ = 0.3.
PHI = 0.3


def weight(z, phi):
    """log p(x, z) - log q(z)."""
    likelihood = Normal(3 * z - 1, number(1.0)).log_prob(number(1.0))
    return likelihood + math.log(0.5) - Bernoulli(logits=phi).log_prob(z)


def negative_elbo(graph, phi):
    z = graph.sample("z", Bernoulli(logits=phi))
    graph.cost("divergence", math.log(2) + Bernoulli(logits=phi).log_prob(z))
    graph.cost("misfit", -Normal(3 * z - 1, number(1.0)).log_prob(number(1.0)))


def negative_elbo_by_control_flow(graph, phi):
    z = graph.sample("z", Bernoulli(logits=phi))
    graph.cost("divergence", math.log(2) + Bernoulli(logits=phi).log_prob(z))
    mean = number(2.0) if z.item() else number(-1.0)
    graph.cost("misfit", -Normal(mean, number(1.0)).log_prob(number(1.0)))


def negative_iwae(graph, phi, samples):
    weights = [weight(graph.sample(f"z{k}", Bernoulli(logits=phi)), phi) for k in range(samples)]
    graph.cost("bound", math.log(samples) - torch.stack(weights).logsumexp(0))


class TestTwoStateModel:
    @pytest.fixture
    def phi(self):
        return number(PHI).requires_grad_()

    @pytest.mark.parametrize(
        ("program", "printed"),
        [
            (negative_elbo, "-0.29335"),
            (negative_elbo_by_control_flow, "-0.29335"),
            (lambda graph, phi: negative_iwae(graph, phi, 1), "-0.29335"),
            (lambda graph, phi: negative_iwae(graph, phi, 2), "-0.14968"),
            (lambda graph, phi: negative_iwae(graph, phi, 4), "-0.067206"),
        ],
        ids=["ELBO", "ELBO by control flow", "IWAE-1", "IWAE-2", "IWAE-4"],
    )
    def test_two_state_model_has_the_published_gradient(self, phi, replayed, program, printed):
        (exact,) = torch.autograd.grad(expected_cost(program, phi), phi)
        assert f"{exact.item():.5g}" == printed
        (estimated,) = torch.autograd.grad(replayed(program, phi), phi)
        assert estimated.item() == pytest.approx(exact.item(), abs=1e-9)

    def test_gradient_has_the_wrong_sign_if_control_flow_is_lost(self, phi, replayed, monkeypatch):
        monkeypatch.setattr(provenance, "control_flow_inputs", lambda *_, **__: [])
        (lost,) = torch.autograd.grad(replayed(negative_elbo_by_control_flow, phi), phi)
        assert lost.item() == pytest.approx(0.0732, abs=2e-4)
