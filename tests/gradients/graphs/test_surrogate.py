"""The expected derivatives of surrogates equal those of the expected cost."""

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Normal

from zoo.gradients import Baseline, LearnedBaseline, LeaveOneOutBaseline, MovingAverageBaseline, SumBaseline
from zoo.gradients.graphs import BaselineWithContext, Pathwise, _surrogate, expected_cost, outcomes, trace
from zoo.gradients.graphs._provenance import provenance

pytestmark = pytest.mark.usefixtures("without_type_checks")  # for speed: these tests make some thousand calls


def of_order(order, **options):
    return lambda graph: graph.surrogate(order=order, **options)


def fixed(values):
    """A ``draw`` that returns fixed values by name."""
    return lambda name, _: torch.as_tensor(values[name], dtype=torch.float64)


def gradient(scalar, theta):
    return torch.autograd.grad(scalar, theta, retain_graph=True)[0]


COSTS = {
    "python_number": lambda x, large: x.item() + large,
    "long_integer": lambda x, large: x.long() + large,
    "tensor": lambda x, large: x.to(torch.float64 if large > 2**10 else torch.float32) + large,
}


@pytest.mark.parametrize("interpret", ["score", "dice", "enumeration"])
@pytest.mark.parametrize(("dtype", "large"), [(torch.bfloat16, 300), (torch.float16, 60_000), (torch.float32, 2**24)])
@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_large_cost_keeps_precision_with_less_precise_log_probabilities(cost, dtype, large, interpret):
    """A cost of 300 + x, of which bfloat16 holds the 300 alone, has the gradient of x."""
    theta = torch.tensor(0.7, dtype=dtype, requires_grad=True)

    def program(graph, theta):
        graph.cost("f", cost(graph.sample("x", Bernoulli(logits=theta)), large))

    def estimate(value):
        graph = trace(program, theta, draw=lambda *_: torch.tensor(value, dtype=dtype))
        surrogate = graph.surrogate({"x": float(large)}, order=1 if interpret == "score" else 2)
        assert surrogate == value + large
        return gradient(surrogate, theta).double()

    p = theta.detach().double().sigmoid()
    if interpret == "enumeration":
        total = expected_cost(program, theta)
        found = gradient(total, theta).double()
        torch.testing.assert_close(
            total.double() - large, p, rtol=0, atol=0.01 if total.dtype is torch.float32 else 1e-3
        )
    else:
        found = (1 - p) * estimate(0.0) + p * estimate(1.0)
    torch.testing.assert_close(found, p * (1 - p), rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_half_precision_costs_are_summed_in_single():
    theta = torch.tensor(0.7, dtype=torch.bfloat16, requires_grad=True)

    def program(graph, theta):
        x = graph.sample("x", Bernoulli(logits=theta))
        for i in range(300):
            graph.cost(f"f{i}", torch.ones_like(x))
        graph.cost("g", x)

    graph = trace(program, theta, draw=lambda *_: torch.tensor(1.0, dtype=torch.bfloat16))
    assert graph.surrogate() == 301
    torch.testing.assert_close(expected_cost(program, theta), 300 + torch.tensor(0.7).sigmoid(), rtol=0, atol=0.01)


class TestGradient:
    def test_first_order_gradient_is_unbiased(self, program, theta, bias):
        assert bias(program, theta) < 1e-9

    def test_higher_order_surrogate_has_unbiased_gradient(self, program, theta, bias):
        assert bias(program, theta, of_order(2)) < 1e-9

    @pytest.mark.parametrize("order", [1, 2])
    @pytest.mark.parametrize("name", ["independent", "random_length", "branch"])
    def test_mean_over_runs_is_unbiased(self, programs, theta, bias, name, order):
        assert bias(programs[name], theta, of_order(order), runs=2) < 1e-9

    def test_gradient_matches_the_five_graphs_of_schulman_2015(self, schulman, theta, replayed):
        program, printed = schulman
        assert gradient(expected_cost(program, theta), theta)[0].item() == pytest.approx(printed, abs=1e-6)
        assert gradient(replayed(program, theta), theta)[0].item() == pytest.approx(printed, abs=1e-6)

    @pytest.mark.parametrize("order", [1, 2])
    def test_value_is_the_mean_cost(self, programs, theta, order):
        graph = trace(programs["nvil_chain"], theta, num_samples=3)
        costs = [cost.value for run in graph.runs for cost in run.costs.values()]
        assert len(costs) == 9
        torch.testing.assert_close(graph.surrogate(order=order), sum(costs) / 3)

    @pytest.mark.parametrize("order", [1, 2])
    def test_pathwise_samples_have_pathwise_gradients(self, theta, order):
        """E[(x - y)²], x ~ N(θ₀, exp(θ₂)²) and y ~ B(σ(θ₁ x)): one path, and one score behind it."""

        class OfFixedNoise(Normal):
            def rsample(self):
                return self.loc + 0.5 * self.scale

        def program(graph, theta):
            x = graph.sample("x", OfFixedNoise(theta[0], theta[2].exp()))
            y = graph.sample("y", Bernoulli(logits=theta[1] * x))
            graph.cost("f", (x - y) ** 2)

        for y in (0.0, 1.0):
            graph = trace(program, theta, estimators={"x": Pathwise()}, draw=fixed({"y": y}))
            x = theta[0] + 0.5 * theta[2].exp()
            by_hand = (x - y) ** 2 + Bernoulli(logits=theta[1] * x).log_prob(torch.tensor(y)) * (x.item() - y) ** 2
            torch.testing.assert_close(gradient(graph.surrogate(order=order), theta), gradient(by_hand, theta))

    @pytest.mark.parametrize("order", [1, 2])
    def test_all_samples_may_be_pathwise(self, theta, order):
        def program(graph, theta):
            graph.cost("f", graph.sample("x", Normal(theta[0], 1.0)) ** 2)

        graph = trace(program, theta, estimators={"x": Pathwise()})
        assert gradient(graph.surrogate(order=order), theta)[0] == 2 * graph.samples["x"]

    @pytest.mark.parametrize("order", [0, -1, 1.5])
    def test_order_below_1_raises_an_error(self, programs, theta, order):
        with pytest.raises(ValueError, match=f"order must be 1, 2, …, got {order}"):
            trace(programs["branch"], theta).surrogate(order=order)


class TestHigherDerivatives:
    def test_hessian_is_unbiased(self, program, theta, replayed, hessian):
        truth = hessian(expected_cost(program, theta), theta)
        torch.testing.assert_close(hessian(replayed(program, theta, of_order(2)), theta), truth, rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        "name", ["two_costs", "diamond", "random_length", "branch", "stochastic_and_deterministic"]
    )
    def test_third_derivatives_are_unbiased(self, programs, theta, replayed, hessian, name):
        def third(scalar):
            (first,) = torch.autograd.grad(scalar, theta, create_graph=True)
            return torch.stack([hessian(d, theta) for d in first if d.requires_grad])

        truth = third(expected_cost(programs[name], theta))
        assert truth.abs().max() > 0.1
        torch.testing.assert_close(third(replayed(programs[name], theta, of_order(3))), truth, rtol=0, atol=1e-9)

    def test_first_order_surrogate_has_a_biased_hessian(self, schulman, theta, replayed, hessian):
        program, _ = schulman
        truth = hessian(expected_cost(program, theta), theta)
        assert (hessian(replayed(program, theta), theta) - truth).abs().max() > 1e-2


class TestTermsOfTheFiveGraphs:
    """The terms of the gradient for each outcome, computed by hand."""

    def test_deterministic_node_before_a_stochastic_one(self, programs, theta):
        for y in (0.0, 1.0):
            graph = trace(programs["deterministic_then_stochastic"], theta, draw=fixed({"y": y}))
            score = 2 * theta[0] * (y - torch.sigmoid(theta[0] ** 2))
            torch.testing.assert_close(gradient(graph.surrogate(), theta)[0], score * (3 * y - 1))

    @pytest.mark.parametrize("order", [1, 2])
    def test_deterministic_node_after_a_stochastic_one(self, theta, order):
        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta[0]))
            y = torch.where(x > 0.3, 1.5, -0.5)  # has no derivative
            graph.cost("f", y**2)

        for x in (0.0, 1.0):
            graph = trace(program, theta, draw=fixed({"x": x}))
            assert not graph.costs["f"].requires_grad
            score = x - torch.sigmoid(theta[0])
            expected = score * (2 * x - 0.5) ** 2
            torch.testing.assert_close(gradient(graph.surrogate(order=order), theta)[0], expected)

    def test_second_of_two_stochastic_nodes(self, theta):
        class UnknownDensity(Bernoulli):
            """A distribution that can be sampled, but whose density is unknown."""

            def log_prob(self, value):
                return super().log_prob(value).detach() * 0

        def program(graph, theta, distribution):
            x = graph.sample("x", Bernoulli(logits=theta[0]))
            y = graph.sample("y", distribution(probs=torch.sigmoid(theta[1]) * (0.2 + 0.6 * x)))
            graph.cost("f", 4 * y)

        for x, y in ((0.0, 1.0), (1.0, 1.0)):
            draw = fixed({"x": x, "y": y})
            score_x = x - torch.sigmoid(theta[0])
            p = torch.sigmoid(theta[1]) * (0.2 + 0.6 * x)
            score_y = (1 - torch.sigmoid(theta[1])) * (y - p) / (1 - p)
            known = gradient(trace(program, theta, Bernoulli, draw=draw).surrogate(), theta)
            torch.testing.assert_close(known[:2], torch.stack([score_x * 4 * y, score_y * 4 * y]))
            unknown = gradient(trace(program, theta, UnknownDensity, draw=draw).surrogate(), theta)
            torch.testing.assert_close(unknown[:2], torch.stack([score_x * 4 * y, 0 * score_y]))

    def test_parameter_with_score_and_pathwise_terms(self, programs, theta):
        t = theta[0]
        for x in (0.0, 1.0):
            graph = trace(programs["stochastic_and_deterministic"], theta, draw=fixed({"x": x}))
            expected = (x - torch.sigmoid(t)) * (x * t**2 + t**4) + 2 * t * (x + 2 * t**2)
            torch.testing.assert_close(gradient(graph.surrogate(), theta)[0], expected)

    @pytest.mark.parametrize("order", [1, 2])
    def test_earlier_cost_is_not_credited(self, programs, theta, order):
        for x1, x2 in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
            graph = trace(programs["two_costs"], theta, draw=fixed({"x1": x1, "x2": x2}))
            f1, f2 = 2 * x1, -3 * x2
            score1, score2 = x1 - torch.sigmoid(theta[0] + 1), x1 * (x2 - torch.sigmoid(theta[0] * x1))
            estimate = gradient(graph.surrogate(order=order), theta)[0]
            torch.testing.assert_close(estimate, score1 * (f1 + f2) + score2 * f2)
            if x1:
                assert (estimate - (score1 + score2) * (f1 + f2)).abs() > 0.5

    @pytest.mark.parametrize("order", [1, 2])
    def test_independent_nodes_are_credited_their_own_costs(self, programs, theta, order):
        estimates = {}
        for a, b in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
            graph = trace(programs["independent"], theta, draw=fixed({"a": a, "b": b}))
            estimates[a, b] = gradient(graph.surrogate(order=order), theta)
        for one in (0.0, 1.0):
            assert estimates[one, 0.0][0] == estimates[one, 1.0][0] != 0  # exactly: no cross terms
            assert estimates[0.0, one][1] == estimates[1.0, one][1]


def warm(baseline):
    """Return a baseline that has learned from a first batch."""
    torch.manual_seed(0)
    baseline = baseline.double()
    baseline(torch.tensor([[2.0], [3.5]]).double().flatten(), torch.ones(2, 1).double())
    return baseline


def learned(*context):
    """A learned baseline with some samples as context."""
    torch.manual_seed(1)
    net = LearnedBaseline(nn.Linear(len(context) + 1, 1)).double()
    return BaselineWithContext(
        net, lambda v: torch.stack([torch.ones(()).double(), *(v[name].double() for name in context)])
    )


# Valid baselines of each program, created anew for each estimate.
EVERYWHERE = {
    "a number": lambda: -0.75,
    "a tensor": lambda: torch.tensor(1.5),
    "nothing": Baseline,
    "moving average": lambda: warm(MovingAverageBaseline()),
    "leave-one-out": lambda: LeaveOneOutBaseline(0),
    "learned": learned,
    "leave-one-out and moving average": lambda: warm(SumBaseline(LeaveOneOutBaseline(0), MovingAverageBaseline())),
}
INFORMED = {
    "two_costs": {"x2": lambda v: 3 * v["x1"] + 1},
    "independent": {"a": lambda v: v["b"] - 2.0, "b": learned("a")},
    "diamond": {"left": lambda v: v["top"] + v["right"] + 1.0, "right": learned("top", "left")},
    "random_length": {"coin1": lambda v: 2.0 + v["coin0"], "coin2": lambda v: 1.0 if v["coin1"] else 5.0},
    "pomdp": {"a0": lambda v: v["o0"] + v["s0"], "a1": lambda v: v["o0"] * v["o1"] + v["a0"] - v["s1"]},
    "nvil_chain": {"h1": 2.0, "h2": lambda v: v["h1"].sum(), "h3": learned()},
}


class TestBaseline:
    @pytest.mark.parametrize("order", [1, 2])
    @pytest.mark.parametrize("kind", EVERYWHERE)
    @pytest.mark.parametrize("name", ["two_costs", "branch", "random_length"])
    def test_baseline_does_not_change_expected_derivatives(
        self, programs, theta, bias, replayed, hessian, name, kind, order
    ):
        names = {name for outcome in outcomes(programs[name], theta) for name in outcome.values}

        def estimate(graph):
            return graph.surrogate({name: EVERYWHERE[kind]() for name in names}, order)

        assert bias(programs[name], theta, estimate, runs=2) < 1e-9
        if order == 2:
            truth = hessian(expected_cost(programs[name], theta), theta)
            second = hessian(replayed(programs[name], theta, estimate, runs=2), theta)
            torch.testing.assert_close(second, truth, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("name", INFORMED)
    def test_baseline_may_use_samples_that_its_own_does_not_influence(
        self, programs, theta, bias, replayed, hessian, name
    ):
        program, baselines = programs[name], INFORMED[name]
        truth = hessian(expected_cost(program, theta), theta)
        assert bias(program, theta, of_order(1, baselines=baselines)) < 1e-9
        second = hessian(replayed(program, theta, of_order(2, baselines=baselines)), theta)
        torch.testing.assert_close(second, truth, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("order", [1, 2])
    def test_baseline_is_subtracted_from_the_downstream_cost(self, programs, theta, order):
        for a, b in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0)):
            graph = trace(programs["independent"], theta, draw=fixed({"a": a, "b": b}))
            loss = graph.surrogate({"a": lambda v: 7 * v["b"] - 1, "b": 2.5}, order)
            score_a, score_b = a - torch.sigmoid(theta[0]), b - torch.sigmoid(theta[1])
            expected = torch.stack([score_a * ((a - 0.3) ** 2 - 7 * b + 1), score_b * (5 * b - 2.5)])
            torch.testing.assert_close(gradient(loss, theta)[:2], expected)
            torch.testing.assert_close(loss.item(), (a - 0.3) ** 2 + 5 * b)

    def test_perfect_baseline_removes_all_variance_at_any_order(self, theta, hessian):
        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta[0]))
            y = graph.sample("y", Bernoulli(logits=theta[1] * x))
            graph.cost("f", 2 * x + 1 + 0 * y)

        p = torch.sigmoid(theta[0]).item()
        for y in (0.0, 1.0):
            graph = trace(program, theta, draw=fixed({"x": 1.0, "y": y}))
            second = hessian(graph.surrogate({"y": 3.0}, order=2), theta)
            of_x_alone = torch.zeros(3, 3).double()
            of_x_alone[0, 0] = 3 * ((1 - p) ** 2 - p * (1 - p))
            torch.testing.assert_close(second, of_x_alone)

    def test_leave_one_out_counts_a_run_without_the_sample_as_cost_0(self, theta):
        def program(graph, theta):
            if graph.sample("coin", Bernoulli(logits=theta[0])):
                graph.cost("f", graph.sample("y", Bernoulli(logits=theta[1])) * 4 + 2)
            else:
                graph.cost("g", 100.0)

        values = {"coin": iter([1.0, 0.0, 1.0]), "y": iter([1.0, 0.0])}
        graph = trace(program, theta, num_samples=3, draw=lambda name, _: torch.tensor(next(values[name])).double())
        loss = graph.surrogate({"y": LeaveOneOutBaseline(0)})
        costs = torch.tensor([6.0, 0.0, 2.0]).double()  # that y influences
        others = torch.tensor([(0.0 + 2.0) / 2, torch.nan, (6.0 + 0.0) / 2]).double()
        score = torch.tensor([1.0, torch.nan, 0.0]).double() - torch.sigmoid(theta[1])
        expected = (score * (costs - others))[[0, 2]].sum() / 3
        torch.testing.assert_close(gradient(loss, theta)[1], expected)

    def test_baseline_function_gets_the_values_of_its_run(self, programs, theta):
        told = []

        def look(values):
            told.append((dict(values), len(values), "b" in values, "c" in values))
            return 0.0

        trace(programs["independent"], theta, draw=fixed({"a": 1.0, "b": 0.0})).surrogate({"a": look})
        assert told == [({"a": 1.0, "b": 0.0}, 2, True, False)]

    def test_baseline_learns_from_runs_with_its_sample_only(self, programs, theta):
        values = {"coin0": iter([0.0, 1.0, 0.0]), "coin1": iter([0.0])}
        graph = trace(
            programs["random_length"],
            theta,
            num_samples=3,
            draw=lambda name, _: torch.tensor(next(values[name])).double(),
        )
        average = MovingAverageBaseline().double()
        graph.surrogate({"coin1": average})
        cost = (theta[1] - theta[2]) ** 2  # after one head
        torch.testing.assert_close(average.mean.value, cost.detach())

    def test_baseline_learns_from_all_batch_elements_of_runs_with_its_sample(self):
        def program(graph, theta):
            if graph.sample("coin", Bernoulli(logits=theta)).all():
                graph.cost("f", graph.sample("y", Bernoulli(logits=theta)) * 4 + theta)
            else:
                graph.cost("g", theta)

        theta = torch.tensor([-1.0, 0.5, 2.0]).double()
        values = {"coin": iter([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]), "y": iter([[1.0, 0.0, 1.0]])}
        source = lambda name, _: torch.tensor(next(values[name])).double()  # noqa: E731
        average = MovingAverageBaseline().double()
        trace(program, theta, batch_dims=1, num_samples=2, draw=source).surrogate({"y": average})
        assert average.mean.value.item() == pytest.approx((4 + 0 + 4 + theta.sum().item()) / 3)

    @pytest.mark.parametrize("order", [1, 2])
    def test_baseline_loss_reaches_only_its_own_parameters(self, programs, theta, order):
        informed = learned("b")
        graph = trace(programs["independent"], theta, draw=fixed({"a": 1.0, "b": 1.0}))
        before = gradient(
            graph.surrogate({"a": lambda v: informed.baseline.net(informed.context(v)).squeeze().detach()}), theta
        )
        loss = graph.surrogate({"a": informed}, order)
        torch.testing.assert_close(gradient(loss, theta), before)
        prediction = informed.baseline.net(torch.ones(1, 2).double())
        squared_error = (prediction - (1 - 0.3) ** 2).square().mean()
        for parameter in informed.baseline.parameters():
            torch.testing.assert_close(gradient(loss, parameter), gradient(squared_error, parameter))

    @pytest.mark.parametrize("order", [1, 2])
    def test_baseline_losses_leave_the_value_unchanged(self, programs, theta, order):
        baselines = {"a": learned("b"), "b": learned("a")}
        graph = trace(programs["independent"], theta, draw=fixed({"a": 1.0, "b": 1.0}))
        loss = graph.surrogate(baselines, order)
        torch.testing.assert_close(loss, sum(graph.costs.values()))
        for informed in baselines.values():
            assert all((gradient(loss, parameter) != 0).all() for parameter in informed.baseline.parameters())

    @pytest.mark.parametrize("order", [1, 2])
    def test_baseline_has_batch_dimensions(self, order):
        theta = torch.linspace(-1, 1, 4).double().requires_grad_()

        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta))
            graph.cost("f", 3 * x + theta)

        x = torch.tensor([0.0, 1.0, 1.0, 0.0]).double()
        for given, value in ((2.0, 2.0), (torch.arange(4), torch.arange(4)), (lambda v: -1, -1)):
            graph = trace(program, theta, batch_dims=1, num_samples=2, draw=fixed({"x": x}))
            expected = (x - torch.sigmoid(theta)) * ((3 * x + theta) - value) + 1
            torch.testing.assert_close(gradient(graph.surrogate({"x": given}, order), theta), expected)


def spy(graph, theta):
    """Two bits, the second conditional on the first; ``spy.stolen`` is a value that no baseline of ``x`` may use."""
    x = graph.sample("x", Bernoulli(logits=theta[0]))
    y = graph.sample("y", Bernoulli(logits=theta[1] * x))
    graph.cost("f", (x + 2 * y - theta[2]) ** 2)
    spy.stolen = torch.stack([y, y]).sum()


class TestInvalidBaseline:
    @pytest.mark.parametrize(
        ("program", "name", "given", "sentence"),
        [
            (spy, "x", lambda v: v["x"], "the baseline of 'x' uses 'x' itself"),
            (spy, "x", lambda v: v["y"] * 2, "the baseline of 'x' uses 'y', which 'x' influences"),
            (spy, "x", lambda v: 1.0 if v["y"] else 0.0, "the baseline of 'x' uses 'y', which 'x' influences"),
            (spy, "x", lambda v: v["y"].item(), "the baseline of 'x' uses 'y', which 'x' influences"),
            (spy, "x", lambda v: v["y"].item() + len(v), "the baseline of 'x' uses 'y', which 'x' influences"),
            (spy, "x", lambda v: spy.stolen, "the baseline of 'x' uses 'y', which 'x' influences"),
            (
                spy,
                "x",
                BaselineWithContext(MovingAverageBaseline(), lambda v: v["y"]),
                "the baseline of 'x' uses 'y', which 'x' influences",
            ),
            (
                spy,
                "y",
                BaselineWithContext(MovingAverageBaseline(), lambda v: v["y"]),
                "the baseline of 'y' uses 'y' itself",
            ),
            ("random_length", "coin0", lambda v: len(v), "the baseline of 'coin0' uses 'coin0' itself"),
            ("random_length", "coin0", lambda v: "coin2" in v, "the baseline of 'coin0' uses 'coin0' itself"),
            ("random_length", "coin0", lambda v: "coin1" in v, "the baseline of 'coin0' uses 'coin0' itself"),
            ("random_length", "coin0", lambda v: v.get("coin9", 0.0), "the baseline of 'coin0' uses 'coin0' itself"),
            ("random_length", "coin0", lambda v: sum(1 for _ in v), "the baseline of 'coin0' uses 'coin0' itself"),
            ("branch", "z", 1j, "the baseline of 'z' must be a tensor or a number, got complex"),
            ("branch", "z", lambda v: None, "the baseline of 'z' must be a tensor or a number, got NoneType"),
            ("branch", "z", lambda v: torch.zeros(3), r"the baseline of 'z' has shape \(3,\), which does not fit \(\)"),
            ("branch", "z", float("nan"), "the baseline of 'z' is not finite"),
            (
                "branch",
                "z",
                LeaveOneOutBaseline(0),
                "the baseline of 'z': LeaveOneOutBaseline.dim=0. needs at least 2 samples",
            ),
            ("branch", "z", LearnedBaseline(nn.Linear(1, 1)), "the baseline of 'z': LearnedBaseline needs context="),
            ("branch", "z", nn.Linear(1, 1), "the baseline of 'z' must be a Baseline, got Linear; wrap a network as"),
            ("branch", "z", lambda v: v["nope"], "the baseline of 'z' uses 'nope', which does not exist in every"),
            ("independent", "c", 1.0, "there is no sample 'c'; there are 'a', 'b'"),
            ("independent", "fa", 1.0, "there is no sample 'fa'; there are 'a', 'b'"),
        ],
    )
    def test_invalid_baseline_raises_an_error_in_one_sentence(self, programs, theta, program, name, given, sentence):
        program = programs.get(program, program)
        heads = lambda *_: torch.ones(()).double()  # noqa: E731
        with pytest.raises(ValueError, match=sentence) as error:
            trace(program, theta, draw=heads).surrogate({name: given})
        assert "\n" not in str(error.value)

    def test_baseline_with_a_gradient_raises_an_error(self, programs, theta):
        graph = trace(programs["branch"], theta)
        for given in (theta[0] * 2, lambda v: theta[0] * 2):
            with pytest.raises(
                ValueError, match="the baseline of 'z' carries a gradient, which would reach the policy"
            ):
                graph.surrogate({"z": given})

    def test_baseline_not_finite_in_one_run_raises_an_error(self, programs, theta):
        values = iter([1.0, torch.inf])
        graph = trace(programs["branch"], theta, num_samples=2)
        with pytest.raises(ValueError, match="the baseline of 'z' is not finite"):
            graph.surrogate({"z": lambda v: next(values)})

    def test_baseline_of_a_pathwise_sample_raises_an_error(self, theta):
        def program(graph, theta):
            graph.cost("f", graph.sample("x", Normal(theta[0], 1.0)))

        graph = trace(program, theta, estimators={"x": Pathwise()})
        with pytest.raises(ValueError, match="sample 'x' has a pathwise gradient; a baseline applies only"):
            graph.surrogate({"x": 1.0})

    @pytest.mark.parametrize("without", [[], [0.0]], ids=["in all runs", "in some runs"])
    def test_baseline_shape_that_depends_on_the_run_raises_an_error(self, programs, theta, without):
        coins, sizes = iter([*without, 1.0, 0.0, 1.0, 0.0]), iter([1, 2])
        source = lambda *_: torch.tensor(next(coins)).double()  # noqa: E731
        graph = trace(programs["random_length"], theta, num_samples=2 + len(without), draw=source)
        with pytest.raises(
            ValueError, match=r"the baseline of 'coin1' has different shapes in the runs: '\(1,\)', '\(2,\)'"
        ):
            graph.surrogate({"coin1": lambda v: torch.zeros(next(sizes))})

    def test_baseline_is_not_evaluated_for_a_run_without_its_sample(self, programs, theta):
        coins = iter([1.0, 1.0, 0.0, 0.0])
        source = lambda *_: torch.tensor(next(coins)).double()  # noqa: E731
        graph = trace(programs["random_length"], theta, num_samples=2, draw=source)
        assert [len(run.samples) for run in graph.runs] == [3, 1]
        graph.surrogate({"coin2": lambda v: v["coin1"]})

    def test_invalid_baseline_is_detected_after_valid_ones(self, programs, theta):
        graph = trace(programs["random_length"], theta, draw=lambda *_: torch.ones(()).double())
        with pytest.raises(ValueError, match="the baseline of 'coin0' uses 'coin0' itself"):
            graph.surrogate({"coin1": lambda v: v["coin0"], "coin0": lambda v: len(v)})

    def test_learning_baseline_shared_by_two_samples_raises_an_error(self, programs, theta):
        graph = trace(programs["independent"], theta, num_samples=2)
        average = MovingAverageBaseline()
        informed = BaselineWithContext(average, lambda v: v["a"])
        for other in (average, SumBaseline(LeaveOneOutBaseline(0), average), informed):
            given = {"a": average, "b": other}
            with pytest.raises(ValueError, match="'a' and 'b' have the same MovingAverageBaseline as a baseline"):
                graph.surrogate(given)
        others, net = LeaveOneOutBaseline(0), learned()
        graph.surrogate({"a": others, "b": others})
        graph.surrogate({"a": net, "b": net})

    @pytest.mark.parametrize("order", [1, 2])
    def test_baseline_that_has_learned_from_the_graph_raises_an_error(self, programs, theta, order):
        graph = trace(programs["independent"], theta, num_samples=2)
        average = MovingAverageBaseline()
        graph.surrogate({"a": average})
        with pytest.raises(
            ValueError, match="MovingAverageBaseline has learned from this graph already, and would bias"
        ):
            graph.surrogate({"b": average}, order=order)
        trace(programs["independent"], theta).surrogate({"b": average})
        graph.surrogate({"b": average.eval()})  # does not learn in evaluation mode

    def test_baselines_must_be_a_mapping(self, programs, theta):
        with pytest.raises(ValueError, match="baselines must be a mapping from names of samples"):
            trace(programs["independent"], theta).surrogate(LeaveOneOutBaseline(0))

    def test_baseline_may_list_samples_if_they_are_fixed(self, programs, theta):
        graph = trace(programs["independent"], theta)
        asking = {"a": lambda v: len(v) + 2.0 * ("b" in v) - len(list(v)), "b": lambda v: v.get("c", 1.0)}
        assert torch.isclose(graph.surrogate(asking), sum(graph.costs.values()))

    def test_failed_baseline_leaves_the_graph_unchanged(self, theta):
        graph = trace(spy, theta)
        for _ in range(2):
            with pytest.raises(ValueError, match="uses 'y'"):
                graph.surrogate({"x": lambda v: v["y"].item()})
        graph.surrogate({"y": lambda v: v["x"]})

    def test_baseline_of_a_sample_missing_in_this_run_is_accepted(self, programs, theta):
        graph = trace(programs["random_length"], theta, draw=lambda *_: torch.zeros(()).double())
        torch.testing.assert_close(graph.surrogate({"coin3": 1.0}), graph.surrogate())


class MeanOfAllRuns(Baseline):
    def predict(self, signal, context, mask):
        return signal.mean(0, keepdim=True)


class LearnsFirst(MovingAverageBaseline):
    def forward(self, signal, context=None, mask=None):
        self.update(signal, mask)
        return super().forward(signal, context, mask)


class TestPlantedMistake:
    """Negative controls: the check of unbiasedness must fail here."""

    def test_action_dependent_baseline_is_detected(self, programs, theta, bias):
        def estimate(graph):
            action = graph.samples["z"].item()  # outside of the program, so untracked
            return graph.surrogate({"z": lambda v: 2 * action})

        assert bias(programs["branch"], theta, estimate) > 1e-2

    @pytest.mark.parametrize("make", [MeanOfAllRuns, LearnsFirst])
    @pytest.mark.parametrize("name", ["branch", "two_costs"])
    def test_baseline_computed_from_the_cost_is_detected(self, programs, theta, bias, name, make):
        def estimate(graph):
            return graph.surrogate({name: make().double() for name in graph.samples})

        assert bias(programs[name], theta, estimate, runs=2) > 1e-2

    def test_moving_average_shared_by_two_samples_is_detected(self, programs, theta, bias, monkeypatch):
        def estimate(graph):
            average = MovingAverageBaseline().double()
            return graph.surrogate({"x1": average, "x2": average})

        monkeypatch.setattr(_surrogate, "check_baselines", lambda *_: None)
        assert bias(programs["two_costs"], theta, estimate) > 1e-2

    @pytest.mark.parametrize("order", [1, 2])
    def test_dropped_downstream_cost_is_detected(self, programs, theta, bias, monkeypatch, order):
        influence = _surrogate._influence_mask

        def forgetful(run, names, parents, like):
            found = influence(run, names, parents, like)
            found[0, -1] = False
            return found

        monkeypatch.setattr(_surrogate, "_influence_mask", forgetful)
        assert bias(programs["two_costs"], theta, of_order(order)) > 1e-2

    @pytest.mark.parametrize("name", ["branch", "index"])
    def test_lost_control_dependency_is_detected(self, programs, theta, bias, monkeypatch, name):
        monkeypatch.setattr(provenance, "control_flow_inputs", lambda *_, **__: [])
        assert bias(programs[name], theta) > 1e-2

    def test_lost_write_is_detected(self, programs, theta, bias, monkeypatch):
        monkeypatch.setattr(provenance, "states", lambda tensors: [(provenance.address_of(x), 0) for x in tensors])
        assert bias(programs["in_place"], theta) > 1e-2

    def test_signal_with_a_gradient_is_detected(self, theta, bias):
        def program(graph, theta):
            x = graph.sample("x", Categorical(logits=theta))
            graph.cost("f", x * theta[1] ** 2)

        def estimate(graph):
            (run,) = graph.runs
            return run.costs["f"].value * (1 + run.samples["x"].log_prob)

        assert bias(program, theta) < 1e-9
        assert bias(program, theta, estimate) > 1e-2
