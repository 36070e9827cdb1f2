"""The variance of a gradient, exact by enumeration, against published figures.

All outcomes of all runs are traced in one pass, as elements of a batch with parameters of their own: the
derivative with respect to an element's parameter is the estimate that its outcomes give.
"""

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, Uniform

from zoo.gradients import LeaveOneOutBaseline
from zoo.gradients.graphs import expected_cost, trace
from zoo.gradients.testing import check_unbiased

pytestmark = pytest.mark.usefixtures("without_type_checks")  # for speed


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def bits_of(eta, count):
    """Bits that share a logit, ``(batch, count)``."""
    return Independent(Bernoulli(logits=eta[:, None].expand(-1, count)), 1)


def tied_bits(target):
    """The cost ``|x - target|²`` of bits that share a logit."""

    def program(graph, eta):
        x = graph.sample("x", bits_of(eta, len(target)))
        graph.cost("f", ((x - number(target)) ** 2).sum(-1))

    return program, len(target)


def two_state_model():
    """The negative ELBO of z ~ B(1/2), x | z ~ N(3z - 1, 1) at x = 1; the score itself, 0 on average, is left out."""

    def program(graph, eta):
        distribution = bits_of(eta, 1)
        z = graph.sample("x", distribution)
        log_joint = Normal(3 * z[:, 0] - 1, number(1.0)).log_prob(number(1.0)) + number(0.5).log()
        graph.cost("f", distribution.log_prob(z).detach() - log_joint)

    return program, 1


def every(values, runs):
    """All joint outcomes of several runs, ``(outcomes, runs)``, as indices of values."""
    return torch.cartesian_prod(*[torch.arange(values)] * runs).reshape(-1, runs)


def mean_and_variance(model, eta, runs, baseline):
    """Exact moments of the gradient estimated by the mean over several runs."""
    program, bits = model
    x = torch.cartesian_prod(*[number([0.0, 1.0])] * bits).reshape(-1, bits)
    together = x[every(len(x), runs)]  # (ways, runs, bits)
    etas = torch.full((len(together),), eta, dtype=torch.float64, requires_grad=True)
    draws = iter(together.unbind(1))
    graph = trace(program, etas, batch_dims=1, num_samples=runs, draw=lambda *_: next(draws))
    (gradient,) = torch.autograd.grad(graph.surrogate({} if baseline is None else {"x": baseline}), etas)
    log_prob = sum(run.samples["x"].log_prob for run in graph.runs).detach()
    probability = log_prob.exp()
    mean = probability @ gradient
    return mean.item(), (probability @ (gradient - mean) ** 2).item()


def by_formula(model, eta, runs, leave_one_out):
    """The same variance without a graph, from tables of costs and scores.

    Plain: ``Var[f s] / K``. Leave-one-out: ``Var[1/(K-1) Σ_k (f_k - f̄) s_k]``.
    """
    program, bits = model
    x = torch.cartesian_prod(*[number([0.0, 1.0])] * bits).reshape(-1, bits)
    p = torch.sigmoid(number(eta))
    probability = torch.where(x > 0, p, 1 - p).prod(-1)
    f = trace(program, number([eta] * len(x)), batch_dims=1, draw=lambda *_: x).costs["f"]
    s = (x - p).sum(-1)
    if not leave_one_out:
        return ((probability @ (f * s) ** 2 - (probability @ (f * s)) ** 2) / runs).item()
    ways = every(len(x), runs)
    estimate = ((f[ways] - f[ways].mean(1, keepdim=True)) * s[ways]).sum(1) / (runs - 1)
    weight = probability[ways].prod(1)
    return (weight @ estimate**2 - (weight @ estimate) ** 2).item()


def assert_printed(value, printed):
    """The value equals the published one in all its digits."""
    digits = len(printed.lstrip("-").split("e")[0].replace(".", "").lstrip("0"))
    unit = 10.0 ** (float(f"{float(printed):e}".split("e")[1]) - digits + 1)
    assert value == pytest.approx(float(printed), abs=0.51 * unit)


ONE_BIT = tied_bits([0.499])
COARSER_BIT = tied_bits([0.45])
THREE_BITS = tied_bits([0.6, 0.51, 0.48])


@pytest.mark.parametrize(
    ("model", "eta", "runs", "gradient", "plain", "leave_one_out"),
    [
        # the toy of REBAR and RELAX
        (ONE_BIT, 0.0, 1, "5.0e-4", "1.5625e-2", None),
        (ONE_BIT, 0.0, 2, "5.0e-4", None, "2.5e-7"),
        (ONE_BIT, 2.0, 1, "2.0999e-4", "6.52e-3", None),
        (ONE_BIT, 2.0, 2, "2.0999e-4", None, "1.659e-7"),
        (COARSER_BIT, 0.0, 1, "0.025", "1.594e-2", None),
        (COARSER_BIT, 0.0, 2, "0.025", None, "6.25e-4"),
        # the toy of Liu et al. and Kool et al.
        (THREE_BITS, 0.0, 2, "-0.0450", "0.219", "0.00728"),
        (THREE_BITS, 0.0, 3, "-0.0450", "0.146", "0.00320"),
        (THREE_BITS, 0.0, 4, "-0.0450", "0.110", "0.00199"),
        (THREE_BITS, -4.0, 2, "-0.0031793", "0.0168", "3.81e-4"),
        (THREE_BITS, -4.0, 3, "-0.0031793", "0.0112", "2.46e-4"),
        (THREE_BITS, -4.0, 4, "-0.0031793", "0.00839", "1.82e-4"),
        # the comparison with Pyro
        (two_state_model(), 0.3, 1, "-0.29335", "1.23", None),
        (two_state_model(), 0.3, 4, "-0.29335", None, "0.0163"),
    ],
)
def test_variance_matches_published_value(model, eta, runs, gradient, plain, leave_one_out):
    for baseline, printed in ((None, plain), (LeaveOneOutBaseline(0), leave_one_out)):
        if printed is not None:
            mean, variance = mean_and_variance(model, eta, runs, baseline)
            assert_printed(mean, gradient)
            assert_printed(variance, printed)
            formula = by_formula(model, eta, runs, leave_one_out=baseline is not None)
            assert variance == pytest.approx(formula, rel=1e-9, abs=1e-15)


def augment_reinforce_merge(cost):
    """ARM for one bit, with an antithetic pair from one uniform number: Yin & Zhou, 2019."""

    def estimator(program, eta, *, draw):
        u, p = draw("u", Uniform(eta.new_zeros(()), 1.0)), eta.detach().sigmoid()
        return (cost((u > 1 - p).double()) - cost((u < p).double())) * (u - 0.5) * eta

    return estimator


def disarm(cost):
    """ARM, with the uniform number summed out given both bits: Dong, Mnih & Tucker, 2020."""

    def estimator(program, eta, *, draw):
        u, p = draw("u", Uniform(eta.new_zeros(()), 1.0)), eta.detach().sigmoid()
        bit, other = (u > 1 - p).double(), (u < p).double()
        return (cost(bit) - cost(other)) * (bit - other) * torch.maximum(p, 1 - p) / 2 * (bit - other) ** 2 * eta

    return estimator


@pytest.mark.parametrize(
    ("target", "eta", "gradient", "of_arm", "of_disarm"),
    [
        (0.499, 0.0, "5.0e-4", "8.33e-8", "0"),
        (0.499, 2.0, "2.0999e-4", "1.420e-7", "1.409e-7"),
        (0.45, 0.0, "0.025", "2.083e-4", "0"),
    ],
)
def test_variance_of_antithetic_estimators_matches_published_value(target, eta, gradient, of_arm, of_disarm):
    """With ``δ = f(1) - f(0)``, ``p = σ(|η|)``, ``q = 1 - p``, the bits differ where ``|u - 1/2| > p - 1/2``.

    ARM gives ``δ |u - 1/2|`` there: second moment ``2 δ² ∫ v² dv`` over ``p - 1/2 < v < 1/2``. DisARM gives ``δ p / 2``
    with probability ``2 q``. Both have the mean ``δ p q``.
    """

    def cost(x):
        return (x - target) ** 2

    def program(graph, eta):
        graph.cost("f", cost(graph.sample("x", Bernoulli(logits=eta))))

    eta = number(eta).requires_grad_()
    p = eta.abs().sigmoid().item()
    q, delta = 1 - p, 1 - 2 * target
    squares = {
        augment_reinforce_merge: (delta**2 * 2 / 3 * (0.5**3 - (p - 0.5) ** 3), of_arm),
        disarm: (delta**2 * p**2 * q / 2, of_disarm),
    }
    for estimator, (square, printed) in squares.items():
        check = check_unbiased(estimator(cost), program, eta, quadrature={"u": 2}, breakpoints={"u": [q, p]})
        check.raise_if_biased()
        total = check.moments.total
        assert_printed(total.mean.item(), gradient)
        assert total.variance.item() == pytest.approx(square - (delta * p * q) ** 2, rel=1e-9, abs=1e-15)
        if printed != "0":
            assert_printed(total.variance.item(), printed)
        else:
            assert total.variance.item() < 1e-15


def test_leave_one_out_over_four_runs_divides_variance_by_five():
    _, plain = mean_and_variance(two_state_model(), 0.3, 4, None)
    _, leave_one_out = mean_and_variance(two_state_model(), 0.3, 4, LeaveOneOutBaseline(0))
    assert plain / leave_one_out > 5
    assert plain / leave_one_out == pytest.approx(18.9, abs=0.1)


@pytest.mark.parametrize(
    ("sign", "everything", "printed"),
    [(1.0, False, "1.498"), (1.0, True, "3.342"), (-1.0, False, "1.136"), (-1.0, True, "0.792")],
)
def test_downstream_costs_may_lower_or_raise_variance(sign, everything, printed):
    """On the fifth graph: dropping an earlier cost never biases, but may lower or raise the variance."""
    x = torch.cartesian_prod(*[number([0.0, 1.0])] * 2)
    theta = torch.full((4,), 0.7, dtype=torch.float64, requires_grad=True)

    def program(graph, theta):
        x1 = graph.sample("x1", Bernoulli(logits=theta + 1))
        x2 = graph.sample("x2", Bernoulli(logits=theta * x1))
        graph.cost("f1", 2 * x1 + (0 * x2 if everything else 0))
        graph.cost("f2", sign * 3 * x2)

    graph = trace(program, theta, batch_dims=1, draw=lambda name, _: x[:, ["x1", "x2"].index(name)])
    (gradient,) = torch.autograd.grad(graph.surrogate(), theta)
    probability = sum(sample.log_prob for sample in graph.runs[0].samples.values()).detach().exp()
    assert_printed((probability @ (gradient - probability @ gradient) ** 2).item(), printed)


def test_moments_are_of_the_gradient_of_the_expected_cost():
    program, _ = THREE_BITS
    eta = number([0.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(expected_cost(program, eta, batch_dims=1), eta)
    assert_printed(gradient.item(), "-0.0450")
