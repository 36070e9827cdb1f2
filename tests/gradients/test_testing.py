"""The public check of unbiasedness: it passes what is right, and finds what is not."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Binomial, Categorical, Independent, Normal, OneHotCategorical, Uniform

from zoo.gradients import (
    Baseline,
    ConstantBaseline,
    GradientMoments,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    Reinforce,
    RunningMoments,
)
from zoo.gradients.graphs import Pathwise, expected_cost, trace
from zoo.gradients.testing import BiasCheck, check_unbiased


def chain(graph, theta):
    """Two choices, the second depending on the first, and a cost of each and of the parameters."""
    x = graph.sample("x", Categorical(logits=theta))
    y = graph.sample("y", Bernoulli(logits=theta[0] * x - 0.3))
    graph.cost("of x", (x - theta[1]) ** 2)
    graph.cost("of both", 3 * y - x * y)


def bits(graph, theta):
    x = graph.sample("x", Bernoulli(logits=theta))
    graph.cost("f", ((x - 0.3) ** 2).sum() + x.prod())


def stopping(graph, theta):
    """Draws a second time only if the first says so."""
    cost = theta[2] ** 2
    if graph.sample("first", Bernoulli(logits=theta[0])):
        cost = 2 * graph.sample("second", Bernoulli(logits=theta[1])) - theta[2]
    graph.cost("f", cost)


def coin(graph, theta):
    graph.cost("f", (graph.sample("x", Bernoulli(logits=theta)) - 0.45) ** 2)


def gaussian(graph, theta):
    graph.cost("f", graph.sample("x", Normal(theta, 1.0)) ** 2)


def traced(order=1, baselines=None, **options):
    """Trace the program."""
    return lambda program, *args, draw: trace(program, *args, draw=draw, **options).surrogate(baselines, order)


def by_hand(baseline, samples=3, cost=lambda x: ((x - 0.3) ** 2).sum(-1) + x.prod(-1)):
    """Estimate for ``bits``, or what costs otherwise, with any ``Baseline`` over samples."""

    def estimator(program, theta, *, draw):
        law = Independent(Bernoulli(logits=theta.expand(3)), 1)
        x = torch.stack([draw("x", law) for _ in range(samples)])
        return Reinforce(baseline)(law.log_prob(x), cost(x)).loss.mean()

    return estimator


def warm(baseline):
    """Let a baseline learn from a first batch."""
    baseline = baseline.double()
    baseline(torch.tensor([3.0, 5.0], dtype=torch.float64))
    return baseline


class SelfInclusiveMean(Baseline):
    def predict(self, signal, context, mask):
        return signal.mean()


class UpdateBeforeUse(MovingAverageBaseline):
    def forward(self, signal, context=None, mask=None):
        self.update(signal, mask)
        self.mean.end_step()  # else the value stays what it was when the step began
        return super().forward(signal, context, mask)


class LearnsAtEachCall(MovingAverageBaseline):
    def forward(self, signal, context=None, mask=None):
        output = super().forward(signal, context, mask)
        self.mean.end_step()
        return output


class SeesTheAction(Baseline):
    def predict(self, signal, context, mask):
        return signal / 2


@pytest.fixture
def theta():
    return torch.tensor([0.7, -0.4, 0.3], dtype=torch.float64, requires_grad=True)


@pytest.fixture
def eta():
    return torch.tensor(0.3, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def of_chain(first_pays):
    """Estimate for ``chain``; ``first_pays`` tells what of both costs the first choice answers for."""

    def estimator(program, theta, *, draw):
        one = Categorical(logits=theta)
        x = draw("x", one)
        two = Bernoulli(logits=theta[0] * x - 0.3)
        y = draw("y", two)
        of_x, of_both = (x - theta[1]) ** 2, 3 * y - x * y
        scores = one.log_prob(x) * first_pays(of_x.detach(), of_both) + two.log_prob(y) * of_both
        return scores + of_x

    return estimator


@pytest.mark.usefixtures("without_type_checks")  # for speed
class TestUnbiasedEstimators:
    @pytest.mark.parametrize("program", [chain, bits, stopping])
    @pytest.mark.parametrize(
        "estimator",
        [
            pytest.param(traced(), id="score function"),
            pytest.param(traced(num_samples=2), id="two samples"),
            pytest.param(traced(order=2), id="DiCE"),
        ],
    )
    def test_surrogate_of_every_program_is_unbiased(self, estimator, program, theta):
        check = check_unbiased(estimator, program, theta)
        check.raise_if_biased()
        assert check.exact
        assert check.bias.shape == (3,)
        assert check.bias.abs().max() < 1e-12

    @pytest.mark.parametrize(
        "estimator",
        [
            pytest.param(traced(baselines={"x": 0.7}), id="constant"),
            pytest.param(traced(baselines={"x": LeaveOneOutBaseline(0)}, num_samples=2), id="leave-one-out"),
            pytest.param(by_hand(LeaveOneOutBaseline(0)), id="leave-one-out by hand"),
            pytest.param(by_hand(ConstantBaseline(-2.0), samples=2), id="constant by hand"),
        ],
    )
    def test_estimator_with_a_baseline_is_unbiased(self, estimator, theta):
        check_unbiased(estimator, bits, theta).raise_if_biased()

    def test_estimator_with_a_baseline_that_learns_after_use_is_unbiased(self, theta):
        baseline = warm(MovingAverageBaseline())
        before = baseline.mean.value.clone()
        check_unbiased(by_hand(baseline), bits, theta, modules=[baseline]).raise_if_biased()
        assert baseline.mean.value == before

    def test_estimator_with_the_whole_cost_as_signal_is_unbiased(self, theta):
        check_unbiased(of_chain(lambda of_x, of_both: of_x + of_both), chain, theta).raise_if_biased()

    def test_program_without_samples_is_unbiased(self, theta):
        check = check_unbiased(lambda program, *args, draw: expected_cost(program, *args), chain, theta)
        assert check.unbiased
        assert check.moments.total.variance == 0

    def test_program_with_an_impossible_choice_is_unbiased(self, theta):
        def masked(graph, theta):
            mask = torch.tensor([-math.inf, 0.0, 0.0])
            graph.cost("f", graph.sample("x", Categorical(logits=theta + mask)) ** 2)

        check_unbiased(traced(num_samples=2), masked, theta).raise_if_biased()

    def test_variable_of_the_estimator_alone_or_of_some_runs_is_enumerated(self, eta):
        def sometimes(graph, theta):
            cost = theta**2
            if graph.sample("z", Bernoulli(logits=theta)):
                cost = cost + graph.sample("x", Normal(theta, 1.0))
            graph.cost("f", cost)

        def with_noise(program, theta, *, draw):
            return traced()(program, theta, draw=draw) + theta * draw("e", Normal(torch.zeros(()), 1.0))

        check_unbiased(with_noise, sometimes, eta, quadrature={"x": 2, "e": 2}).raise_if_biased()

    def test_empty_variable_is_supported(self, theta):
        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta[:0]))
            graph.cost("f", x.sum() + theta[0] ** 2)

        check_unbiased(traced(), program, theta).raise_if_biased()

    def test_batch_of_programs_is_unbiased(self, theta):
        def batch(graph, theta):
            graph.cost("f", graph.sample("x", Bernoulli(logits=theta)) * theta**2)

        check_unbiased(traced(batch_dims=1), batch, theta, batch_dims=1).raise_if_biased()

    def test_single_precision_is_supported(self):
        theta = torch.tensor([0.7, -0.4, 0.3], requires_grad=True)
        check_unbiased(traced(num_samples=2), bits, theta).raise_if_biased()
        assert not check_unbiased(by_hand(SelfInclusiveMean()), bits, theta)


@pytest.mark.usefixtures("without_type_checks")
class TestPlantedMistake:
    @pytest.mark.parametrize(
        "baseline",
        [SelfInclusiveMean(), SeesTheAction(), warm(UpdateBeforeUse())],
        ids=["mean that includes the sample itself", "baseline that sees the action", "moving average used too late"],
    )
    def test_biased_baseline_is_detected(self, baseline, theta):
        check = check_unbiased(by_hand(baseline), bits, theta, modules=[baseline])
        assert not check.unbiased
        assert check.bias.abs().max() > 1e-3

    def test_dropped_downstream_cost_is_detected(self, theta):
        assert not check_unbiased(of_chain(lambda of_x, of_both: of_x), chain, theta).unbiased

    def test_dropped_cost_gradient_is_detected(self, theta):
        def costs_detached(program, theta, *, draw):
            graph = trace(program, theta, draw=draw)
            return graph.surrogate() - sum(graph.costs.values())

        assert not check_unbiased(costs_detached, stopping, theta).unbiased

    def test_bias_in_one_of_many_parameters_is_detected(self, theta):
        def wrong_in_the_last(program, theta, *, draw):
            return trace(program, theta, draw=draw).surrogate() + 1e-6 * theta[2]

        check = check_unbiased(wrong_in_the_last, bits, theta)
        torch.testing.assert_close(check.bias, torch.tensor([0.0, 0.0, 1e-6]).double(), rtol=0, atol=1e-12)
        assert "off by 1e-06 in element 2" in str(check)

    def test_nan_gradient_is_detected(self, theta):
        def nothing(program, theta, *, draw):
            return trace(program, theta, draw=draw).surrogate() + 0 * (theta - theta).sqrt().sum()

        assert not check_unbiased(nothing, bits, theta).unbiased


def arm(program, theta, *, draw):
    """Augment-REINFORCE-merge for ``coin``: Yin & Zhou, 2019."""
    u, p = draw("u", Uniform(theta.new_zeros(()), 1.0)), theta.sigmoid()
    one, other = ((x.double() - 0.45) ** 2 for x in (u > 1 - p, u < p))
    return ((one - other) * (u - 0.5)).detach() * theta


@pytest.mark.usefixtures("without_type_checks")
class TestContinuousNoise:
    def test_noise_is_integrated_piecewise_between_breakpoints(self, eta):
        p = eta.sigmoid().item()
        check = check_unbiased(arm, coin, eta, quadrature={"u": 2}, breakpoints={"u": [p, 1 - p]})
        check.raise_if_biased()
        variance = check.moments.total.variance  # between the breakpoints the estimate is ±0.1 (u - 1/2), elsewhere 0
        outside = 2 * (0.5**3 - (p - 0.5) ** 3) / 3
        assert variance.item() == pytest.approx(0.01 * outside - check.moments.total.mean.item() ** 2, abs=1e-12)

    def test_quadrature_across_breakpoints_is_inexact(self, eta):
        assert not check_unbiased(arm, coin, eta, quadrature={"u": 8}).unbiased

    def test_enumeration_detects_a_planted_mistake(self, eta):
        p = eta.sigmoid().item()

        def twice(*args, draw):
            return 2 * arm(*args, draw=draw)

        assert not check_unbiased(twice, coin, eta, quadrature={"u": 2}, breakpoints={"u": [p, 1 - p]}).unbiased

    def test_noise_may_have_several_elements_with_breakpoints_each(self, theta):
        def inverted(program, theta, *, draw):
            u = draw("u", Independent(Uniform(torch.zeros(2, dtype=torch.float64), 1.0), 1))
            return trace(program, theta, draw=lambda *_: (u < theta[:2].sigmoid()).double()).surrogate()

        def two_bits(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta[:2]))
            graph.cost("f", x.prod() - x[0])

        breakpoints = {"u": theta[:2].sigmoid().tolist()}
        assert check_unbiased(inverted, two_bits, theta, quadrature={"u": 1}, breakpoints=breakpoints).unbiased
        assert not check_unbiased(inverted, two_bits, theta, quadrature={"u": 1}).unbiased

    def test_noise_may_have_any_quantile_function(self, eta):
        def step(program, theta, *, draw):
            return traced()(program, theta, draw=lambda *_: 1.0 * (draw("e", Normal(theta.new_zeros(()), 1.0)) > -1))

        def often(graph, theta):
            probability = 0.5 + 0.5 * math.erf(1 / math.sqrt(2))
            graph.cost("f", theta * graph.sample("x", Bernoulli(probs=theta.new_tensor(probability))))

        assert check_unbiased(step, often, eta, quadrature={"e": 1}, breakpoints={"e": [-1.0]}).unbiased
        assert not check_unbiased(step, often, eta, quadrature={"e": 8}).unbiased

    @pytest.mark.parametrize("factor", [1.0, 1.1])
    def test_normal_noise_is_integrated_in_program_and_estimator(self, eta, factor):
        def by_noise(program, theta, *, draw):
            return factor * (theta + draw("noise", Normal(theta.new_zeros(()), 1.0))) ** 2

        check = check_unbiased(by_noise, gaussian, eta, quadrature={"x": 8, "noise": 8})
        assert check.unbiased == (factor == 1)

    @pytest.mark.parametrize("factor", [1.0, 1.1])
    def test_breakpoint_of_a_program_splits_program_and_estimator(self, eta, factor):
        def step(graph, theta):
            graph.cost("f", (graph.sample("x", Normal(theta, 1.0)) > 0.1).double())

        def estimator(*args, draw):
            return factor * traced(num_samples=2, baselines={"x": LeaveOneOutBaseline(0)})(*args, draw=draw)

        check = check_unbiased(estimator, step, eta, quadrature={"x": 16}, breakpoints={"x": [0.1]})
        assert check.unbiased == (factor == 1)
        truth = Normal(0.0, 1.0).log_prob(eta - 0.1).exp().item()
        assert check.moments.total.mean.item() == pytest.approx(factor * truth, abs=1e-9)

    def test_noise_is_integrated_for_each_sample(self, eta):
        leave_one_out = traced(num_samples=2, baselines={"x": LeaveOneOutBaseline(0)})
        check_unbiased(leave_one_out, gaussian, eta, quadrature={"x": 8}).raise_if_biased()


@pytest.mark.usefixtures("without_type_checks")
class TestParameters:
    def test_all_arguments_that_require_a_gradient_are_checked_once(self, theta, eta):
        def program(graph, both, net, scale):
            x = graph.sample("x", Bernoulli(logits=net(both["theta"]).squeeze() + both["eta"]))
            graph.cost("f", scale * x * both["eta"])

        net = nn.Linear(3, 1).double()
        check = check_unbiased(traced(), program, {"theta": theta, "eta": eta, "again": theta}, net, 2.0)
        assert check.unbiased
        assert [m.mean.shape for m in check.moments.parameters] == [(3,), (), (1, 3), (1,)]

    def test_buffers_of_an_estimator_module_are_preserved(self, theta):
        class Estimator(nn.Module):
            def __init__(self):
                super().__init__()
                self.baseline = warm(MovingAverageBaseline())

            def forward(self, program, theta, *, draw):
                return by_hand(self.baseline, samples=1)(program, theta, draw=draw)

        check_unbiased(Estimator(), bits, theta).raise_if_biased()


@pytest.mark.usefixtures("without_type_checks")
class TestMoments:
    """The check goes through all outcomes, and so gives the exact variance too."""

    @pytest.mark.parametrize(
        ("eta", "samples", "gradient", "plain", "leave_one_out"),
        [
            (0.0, 2, -0.0450, 0.219, 0.00728),
            (0.0, 3, -0.0450, 0.146, 0.00320),
            (-4.0, 2, -0.0031793, 0.0168, 3.81e-4),
            (-4.0, 3, -0.0031793, 0.0112, 2.46e-4),
        ],
    )
    def test_moments_equal_published_values_of_three_tied_bits(self, eta, samples, gradient, plain, leave_one_out):
        target = torch.tensor([0.6, 0.51, 0.48], dtype=torch.float64)

        def cost(x):
            return (x - target).square().sum(-1)

        def tied(graph, eta):
            graph.cost("f", cost(graph.sample("x", Bernoulli(logits=eta.expand(3)))))

        eta = torch.tensor(eta, dtype=torch.float64, requires_grad=True)
        for baseline, variance in ((Baseline(), plain), (LeaveOneOutBaseline(0), leave_one_out)):
            check = check_unbiased(by_hand(baseline, samples, cost), tied, eta)
            assert check.unbiased
            assert check.moments.total.mean.item() == pytest.approx(abs(gradient), rel=1e-4)
            assert check.moments.total.variance.item() == pytest.approx(variance, rel=5e-3)

    @pytest.mark.parametrize(
        "law",
        [
            lambda p: Bernoulli(probs=p),
            lambda p: Categorical(probs=torch.stack([1 - p, p])),
            lambda p: OneHotCategorical(probs=torch.stack([1 - p, p])),
            lambda p: Independent(Bernoulli(probs=p.expand(1)), 1),
        ],
        ids=["Bernoulli", "Categorical", "OneHotCategorical", "Independent"],
    )
    def test_moments_equal_those_of_a_trace(self, law, theta):
        """No influence is lost by it, and none is made up: the second cost is none of x's and y's business."""

        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta[0]))
            y = graph.sample("y", law(0.2 + 0.6 * x))
            z = graph.sample("z", Bernoulli(logits=theta[1]))
            graph.cost("of y", 3 * y.double().flatten()[-1])
            graph.cost("of z", 5 * z)

        def by_hand(program, theta, *, draw):
            of_x, of_z = Bernoulli(logits=theta[0]), Bernoulli(logits=theta[1])
            x = draw("x", of_x)
            y, z = draw("y", Bernoulli(probs=0.2 + 0.6 * x)), draw("z", of_z)
            return of_x.log_prob(x) * 3 * y + of_z.log_prob(z) * 5 * z

        checks = [check_unbiased(estimator, program, theta) for estimator in (traced(), by_hand)]
        assert all(checks)
        one, other = (check.moments.parameters[0].variance for check in checks)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def judged(running, truth, alpha=0.1):
    """Return the bias test of sampled gradients."""
    return BiasCheck.from_moments(GradientMoments.from_samples(running, [torch.zeros_like(truth)]), truth, alpha)


def gaussian_toy(repeats, draws, bias):
    """Estimates of three parameters with Gaussian noise, whose exact gradient is 0, many times over."""
    scale = torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)
    for _ in range(repeats):
        moments = RunningMoments()
        gradients = (torch.randn(draws, 3, dtype=torch.float64) + bias) * scale
        moments.update(gradients, torch.ones(draws, dtype=torch.float64))
        yield judged(moments, torch.zeros(3, dtype=torch.float64))


class RareGradients:
    """Moments of gradients that are 1e4 in 1, 2, …, all but one of the draws, else 0; one element per number."""

    def __init__(self, draws):
        self.weight = draws
        self.counts = torch.arange(1, draws, dtype=torch.float64)
        p = self.counts / draws
        self.mean = 1e4 * p
        self.m2 = 1e8 * draws * p * (1 - p)
        self.skewness_of_mean = (1 - 2 * p) / (draws * p * (1 - p)).sqrt()


@pytest.mark.usefixtures("without_type_checks")
class TestSampling:
    """Each statistical test here gives a false alarm at most once in a million seeds."""

    def test_false_positive_rate_equals_alpha(self):
        checks = list(gaussian_toy(4000, 1000, bias=0.0))
        rate = 1 - (1 - 0.1 / 3) ** 3  # Bonferroni, of three independent parameters
        bound = 4.9 * math.sqrt(rate * (1 - rate) / 4000)
        assert sum(not check.unbiased for check in checks) / 4000 == pytest.approx(rate, abs=bound)
        assert all(check.unbiased == (check.p_value >= 0.1) for check in checks)

    def test_finds_the_detectable_bias_with_the_stated_power(self):
        standard_error = 1 / math.sqrt(1000)
        bias = standard_error * (2.128045 + 1.644854)  # of the normal: 1 - 0.1 / 3 / 2 and 95 %
        (check,) = gaussian_toy(1, 1000, 0.0)
        expected = bias * torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)
        torch.testing.assert_close(
            check.detectable_bias, expected, rtol=0.12, atol=1e-8
        )  # 5 σ of a variance's estimate
        found = sum((check.bias.abs() > check.threshold)[0].item() for check in gaussian_toy(4000, 1000, bias))
        assert found / 4000 == pytest.approx(0.95, abs=4.9 * math.sqrt(0.95 * 0.05 / 4000))

    @pytest.mark.parametrize("expected_count", [0.1, 1, 3, 10, 30, 100, 300, 500])
    @pytest.mark.parametrize("alpha", [1e-2, 1e-6])
    def test_false_positive_rate_equals_alpha_for_gradients_that_are_rarely_nonzero(self, expected_count, alpha):
        """Exactly, by the binomial law of how often there is one; with no skewness taken in, it would not."""
        draws = 1000
        p = torch.tensor(expected_count / draws, dtype=torch.float64)
        rare = RareGradients(draws)
        probability = Binomial(draws, probs=p).log_prob(rare.counts).exp()
        truth = (1e4 * p).expand(draws - 1)
        check = judged(rare, truth, alpha * (draws - 1))  # which Bonferroni takes back
        called_biased = check.bias.abs() > check.threshold
        assert probability[called_biased].sum() < 1.1 * alpha
        assert called_biased.any()
        if (expected_count, alpha) == (30, 1e-6):
            rare.skewness_of_mean = torch.zeros_like(rare.skewness_of_mean)
            check = judged(rare, truth, alpha * (draws - 1))
            assert probability[check.bias.abs() > check.threshold].sum() > 10 * alpha

    def test_large_bias_of_a_gradient_that_is_rarely_nonzero_is_detected(self):
        def rare(graph, theta):
            graph.cost("f", 1e4 * graph.sample("x", Bernoulli(logits=theta - 4)))

        def of_the_wrong_sign(*args, draw):
            return -traced()(*args, draw=draw)

        theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        assert check_unbiased(traced(), rare, theta, num_samples=1500)
        assert not check_unbiased(of_the_wrong_sign, rare, theta, num_samples=1500)

    def test_gradient_that_is_never_sampled_nonzero_raises(self):
        def rare(graph, theta):
            graph.cost("f", 1e4 * graph.sample("x", Bernoulli(logits=theta - 16)))

        theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        with pytest.raises(
            ValueError, match=r"element 0 of the gradient is the same in all samples, .* or use the exact check"
        ) as e:
            check_unbiased(traced(), rare, theta, num_samples=1000)
        assert "\n" not in str(e.value)
        assert check_unbiased(traced(), rare, theta, num_samples=1000, tolerance=1.0)
        assert check_unbiased(traced(), rare, theta)

    @pytest.mark.parametrize(
        "estimator", [traced(), traced(estimators={"x": Pathwise()})], ids=["score function", "pathwise"]
    )
    def test_unbiased_estimators_with_continuous_draws_pass(self, estimator, eta):
        check = check_unbiased(estimator, gaussian, eta, quadrature={"x": 8}, num_samples=1000)
        assert check.unbiased
        assert not check.exact
        assert 1e-6 < check.p_value <= 1

    def test_bias_beyond_the_threshold_is_found(self, eta):
        """The power to find 1.5 times the detectable bias is beyond a million to one."""

        def twice(*args, draw):
            return 2 * traced(estimators={"x": Pathwise()})(*args, draw=draw)

        eta = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        check = check_unbiased(twice, gaussian, eta, quadrature={"x": 8}, num_samples=1000)
        assert not check.unbiased
        assert check.p_value < 1e-6
        assert check.bias.abs() > 1.5 * check.detectable_bias
        assert "the estimator is biased: the expected gradient is off by" in str(check)

    def test_rounding_is_tolerated_without_noise(self, theta):
        (truth,) = torch.autograd.grad(expected_cost(bits, theta), theta)
        check = check_unbiased(lambda program, theta, draw: (truth + 1e-12) @ theta, bits, theta, num_samples=1000)
        assert check.unbiased
        assert check.p_value == 1

    def test_state_of_baselines_is_preserved(self, theta):
        baseline = warm(MovingAverageBaseline())
        before = baseline.mean.value.clone()
        assert check_unbiased(by_hand(baseline), bits, theta, num_samples=1000, modules=[baseline]).unbiased
        assert baseline.mean.value == before


@pytest.mark.usefixtures("without_type_checks")
class TestResult:
    def test_result_is_printed_in_a_sentence(self, theta):
        check = check_unbiased(traced(), bits, theta)
        assert str(check).startswith("no bias was found: the expected gradient is off by ")
        assert (bool(check), check.p_value) == (True, 1)
        assert torch.equal(check.detectable_bias, check.threshold)
        sampled = str(check_unbiased(traced(), bits, theta, num_samples=1000))
        assert ", p = " in sampled
        assert sampled.endswith(" there is found with 95% probability")

    def test_result_is_false_and_raises_for_a_bias(self, theta):
        check = check_unbiased(by_hand(SelfInclusiveMean()), bits, theta)
        assert (bool(check), check.p_value) == (False, 0)
        with pytest.raises(AssertionError, match="the estimator is biased: the expected gradient is off by"):
            check.raise_if_biased()

    def test_tolerance_is_respected(self, theta):
        def estimator(program, theta, *, draw):
            return trace(program, theta, draw=draw).surrogate() + 1e-3 * theta.sum()

        assert not check_unbiased(estimator, bits, theta).unbiased
        assert check_unbiased(estimator, bits, theta, tolerance=1e-3).unbiased


def seldom_another(program, theta, *, draw):
    """Draw a number beside the program's, which hardly ever matters."""
    return (2 if torch.rand(()) < 1e-6 else 1) * trace(program, theta, draw=draw).surrogate()


def sometimes_more(program, theta, *, draw, calls=itertools.count()):  # noqa: B008 (a state is the point)
    """Draw once more at every other call."""
    surrogate = trace(program, theta, draw=draw).surrogate()
    if next(calls) % 2:
        draw("again", Bernoulli(probs=torch.tensor(0.5)))
    return surrogate


def own_bit(program, theta, *, draw):
    """Draw again, or not, by chance."""
    if torch.rand(()) < 0.5:
        draw("again", Bernoulli(logits=theta[0].detach()))
    return trace(program, theta, draw=draw).surrogate()


@pytest.mark.usefixtures("without_type_checks")
class TestInvalidArguments:
    @pytest.mark.parametrize(
        ("estimator", "options", "sentence"),
        [
            (traced(), {"alpha": 0.0}, "alpha must lie between 0 and 1, got 0"),
            (traced(), {"num_samples": 10}, "a z-test needs at least 1000 samples, got 10"),
            (traced(), {"breakpoints": {"u": [0.5]}}, "breakpoints of 'u' need a number of nodes too"),
            (lambda *args, draw: torch.ones(3), {}, "the estimator must return a scalar tensor, got shape .3,."),
            (lambda *args, draw: torch.ones(3), {"num_samples": 1000}, "must return a scalar tensor, got shape .3,."),
            (lambda *args, draw: torch.ones(()), {}, "no loss has a gradient"),
            (
                lambda *args, draw: draw("e", Normal(0.0, 1.0)),
                {},
                "of what the estimator draws, sample 'e' .Normal. is continuous .* quadrature={'e': 32}; or test the",
            ),
            (traced(), {"quadrature": {"typo": 3}}, "there is no sample 'typo' to integrate; there are 'x'"),
            (
                traced(),
                {"quadrature": {"typo": 3}, "breakpoints": {"typo": [0.0]}, "num_samples": 1000},
                "there is no sample 'typo' to integrate; there are 'x'",
            ),
            (traced(), {"max_outcomes": 7}, "'x' alone has 8 outcomes, more than 7; increase"),
            (
                traced(num_samples=2),
                {"max_outcomes": 63},
                "there are more than 63 outcomes: .* 8 .x. · 8 .x.; increase",
            ),
            (
                lambda *args, draw: draw("u", Bernoulli(torch.full((20,), 0.5))).sum(),
                {},
                "'u' alone has 1048576 outcomes, more than 100000; increase max_outcomes, or test the",
            ),
            (lambda *args, draw: 1.0, {}, "the estimator must return a scalar tensor, got float"),
            (
                lambda *args, draw: {"loss": 1.0},
                {"num_samples": 1000},
                "the estimator must return a scalar tensor, got dict",
            ),
            (by_hand(warm(LearnsAtEachCall())), {}, "is not deterministic .* it keeps a state"),
            (sometimes_more, {}, "is not deterministic .* it keeps a state"),
            (own_bit, {}, "is not deterministic .* its random numbers do not come from draw"),
            (seldom_another, {}, "is not deterministic .* its random numbers do not come from draw"),
        ],
    )
    def test_invalid_arguments_raise_in_one_sentence(self, estimator, options, sentence, theta):
        with pytest.raises(ValueError, match=sentence) as error:
            check_unbiased(estimator, bits, theta, **options)
        assert "\n" not in str(error.value)

    def test_trace_with_its_own_randomness_raises(self, eta):
        with pytest.raises(ValueError, match="its random numbers do not come from draw"):
            check_unbiased(traced(estimators={"x": Pathwise()}), gaussian, eta, quadrature={"x": 8})

    def test_program_without_parameters_raises(self, theta):
        with pytest.raises(ValueError, match="none of the program's arguments requires a gradient"):
            check_unbiased(traced(), bits, theta.detach())

    @pytest.mark.parametrize("breakpoints", [[0.5, 2.0], [0.0], [-1.0]])
    def test_breakpoint_outside_the_support_raises(self, breakpoints, eta):
        with pytest.raises(ValueError, match="the breakpoints of 'u' must lie within its support"):
            check_unbiased(arm, coin, eta, quadrature={"u": 2}, breakpoints={"u": breakpoints})
