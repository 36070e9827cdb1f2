import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Categorical

from zoo.gradients import MovingAverageBaseline, Reinforce, exact_moments, gradient_moments, optimal_baseline
from zoo.gradients._steps import preserve_buffers

NOISE = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def parameters():
    """Two, of different shapes; five numbers together."""
    return [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 2), (1,))]


def linear(parameters, coefficients):
    """A loss whose gradient is the coefficients."""
    return coefficients @ torch.cat([p.flatten() for p in parameters])


def one_by_one(parameters, chunk_size=1):
    """A loss whose gradients are the rows of NOISE."""
    rows = iter(NOISE if chunk_size == 1 else NOISE.split(chunk_size))
    return lambda: linear(parameters, next(rows))


def flat(moments, field):
    return torch.cat([getattr(m, field).flatten() for m in moments.parameters])


def same(one, other):
    torch.testing.assert_close(one, torch.as_tensor(other, dtype=one.dtype), rtol=0, atol=1e-12)


class TestSampledMoments:
    def test_moments_of_each_parameter_are_those_of_its_gradients(self, parameters):
        moments = gradient_moments(one_by_one(parameters), parameters, num_samples=12)
        assert [m.mean.shape for m in moments.parameters] == [p.shape for p in parameters]
        same(flat(moments, "mean"), NOISE.mean(0))
        same(flat(moments, "variance"), NOISE.var(0))
        same(flat(moments, "standard_error"), NOISE.std(0) / math.sqrt(12))
        same(flat(moments, "signal_to_noise"), NOISE.mean(0).abs() / NOISE.std(0))

    def test_total_moments_are_those_of_the_whole_vector(self, parameters):
        total = gradient_moments(one_by_one(parameters), parameters, num_samples=12).total
        same(total.mean, NOISE.mean(0).norm())
        same(total.variance, NOISE.var(0).sum())
        same(total.standard_error, (NOISE.var(0).sum() / 12).sqrt())
        same(total.signal_to_noise, NOISE.mean(0).norm() / NOISE.var(0).sum().sqrt())

    @pytest.mark.parametrize("chunk_size", [3, 4, 12])
    def test_moments_are_the_same_in_one_vectorized_pass(self, parameters, chunk_size):
        loss = one_by_one(parameters, chunk_size)
        moments = gradient_moments(loss, parameters, num_samples=12, chunk_size=chunk_size)
        same(flat(moments, "mean"), NOISE.mean(0))
        same(flat(moments, "variance"), NOISE.var(0))

    def test_moments_far_from_zero_keep_their_precision(self, parameters):
        rows = iter(NOISE + 1e8)
        moments = gradient_moments(lambda: linear(parameters, next(rows)), parameters, num_samples=12)
        torch.testing.assert_close(flat(moments, "variance"), NOISE.var(0), rtol=1e-6, atol=0)

    def test_moments_of_half_precision_are_in_single_precision(self):
        theta = torch.zeros((), dtype=torch.bfloat16, requires_grad=True)
        values = iter([256.0, 260.0, 264.0])
        moments = gradient_moments(lambda: theta * next(values), [theta], num_samples=3)
        assert moments.total == (torch.tensor(260.0), torch.tensor(16.0), torch.tensor(16 / 3).sqrt())

    def test_signal_to_noise_is_infinite_without_noise_and_zero_without_gradient(self, parameters):
        steady, unused = parameters
        moments = gradient_moments(lambda: steady.sum(), [steady, unused], num_samples=3)
        assert moments.parameters[0].signal_to_noise.eq(math.inf).all()
        assert moments.parameters[1].mean == moments.parameters[1].variance == 0
        assert moments.parameters[1].signal_to_noise == 0

    def test_sample_without_gradient_counts_as_zero(self, parameters):
        losses = iter([linear(parameters, NOISE[0]), torch.tensor(7.0, dtype=torch.float64)])
        same(flat(gradient_moments(lambda: next(losses), parameters, num_samples=2), "mean"), NOISE[0] / 2)

    def test_grad_of_parameters_is_not_changed(self, parameters):
        parameters[0].grad = torch.ones(2, 2, dtype=torch.float64)
        gradient_moments(one_by_one(parameters), parameters, num_samples=12)
        assert parameters[0].grad.eq(1).all()
        assert parameters[1].grad is None

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"num_samples": 1}, "num_samples must be at least 2, and a multiple of chunk_size=1, got 1"),
            ({"num_samples": 10, "chunk_size": 3}, "a multiple of chunk_size=3, got 10"),
            ({"num_samples": 4, "chunk_size": 0}, "chunk_size=0"),
            ({"num_samples": 4, "chunk_size": 4}, r"with chunk_size=4 the loss must have shape \(4,\), got \(\)"),
            ({"num_samples": 4, "parameters": []}, "there must be parameters"),
            ({"num_samples": 4, "parameters": [torch.zeros(1)]}, "all with requires_grad=True"),
            ({"num_samples": 4, "loss": lambda: torch.zeros(())}, "no loss has a gradient"),
            ({"num_samples": 4, "loss": lambda: torch.zeros(3)}, r"must have shape \(\), got \(3,\)"),
            ({"num_samples": 4, "loss": lambda: 1.0}, "the loss must be a tensor, got float"),
            ({"num_samples": 4, "loss": lambda: {"loss": torch.zeros(())}}, "the loss must be a tensor, got dict"),
            (
                {"num_samples": 4, "parameters": nn.Linear(1, 1).named_parameters()},
                "a parameter must be a tensor, got tuple",
            ),
            (
                {"num_samples": 4, "parameters": torch.ones(3, requires_grad=True)},
                "must be a list of tensors, got one Tensor",
            ),
            ({"num_samples": 4, "parameters": nn.Linear(1, 1)}, "must be a list of tensors, got one Linear"),
        ],
    )
    @pytest.mark.usefixtures("without_type_checks")
    def test_invalid_arguments_raise_in_one_sentence(self, parameters, options, sentence):
        call = {"loss": one_by_one(parameters), "parameters": parameters, **options}
        with pytest.raises(ValueError, match=sentence) as error:
            gradient_moments(**call)
        assert "\n" not in str(error.value)


class TestLearningModules:
    @pytest.fixture
    def reinforce(self):
        reinforce = Reinforce(MovingAverageBaseline(decay=0.5)).double()
        reinforce(torch.zeros(2, dtype=torch.float64), torch.tensor([3.0, 5.0]))  # it guesses 4
        return reinforce

    def measure(self, reinforce, modules):
        """Gradients ``signal - baseline`` of three draws."""
        theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        signals = iter(torch.tensor([[1.0], [4.0], [7.0]]))

        def loss():
            reinforce.end_step()  # as an optimizer would
            return reinforce(theta.expand(1), next(signals)).loss.sum()

        return gradient_moments(loss, [theta], num_samples=3, modules=modules).total

    def test_module_state_is_the_same_at_each_sample_and_afterwards(self, reinforce):
        before = copy.deepcopy(reinforce.state_dict())
        total = self.measure(reinforce, [reinforce])
        assert (total.mean, total.variance) == (0, 9)
        assert all(torch.equal(x, before[name]) for name, x in reinforce.state_dict().items())

    def test_state_of_unnamed_modules_changes(self, reinforce):
        assert self.measure(reinforce, []).variance != 9
        assert reinforce.baseline.mean.value != 4

    @pytest.mark.parametrize("fails", [False, True])
    def test_buffers_are_restored_whatever_changed_them(self, fails):
        module = nn.BatchNorm1d(2)
        module.register_buffer("none", None)
        module.register_buffer("twin", module.running_mean)
        own = {name: (buffer, buffer.clone(), buffer._version) for name, buffer in module.named_buffers()}

        def work():
            with preserve_buffers([module, module]):
                module.running_mean.add_(1)
                assert module.twin is module.running_mean
                module.running_var = torch.zeros(2)
                module.register_buffer("new", torch.zeros(1))
                if fails:
                    raise KeyError

        if fails:
            with pytest.raises(KeyError):
                work()
        else:
            work()
        assert dict(module.named_buffers()).keys() == own.keys()
        assert module.none is None
        for name, buffer in module.named_buffers():
            original, value, version = own[name]
            assert buffer is original
            assert torch.equal(buffer, value)
            assert buffer._version == version


class TestExactMoments:
    @pytest.fixture
    def coin(self):
        """Probability and losses of a coin with logit 0 that costs (x - 0.499)²: the toy of REBAR and RELAX."""
        eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        x = torch.tensor([0.0, 1.0], dtype=torch.float64)
        log_prob = nn.functional.logsigmoid((2 * x - 1) * eta)
        return eta, log_prob.exp(), log_prob * (x - 0.499) ** 2

    def test_moments_equal_published_values_of_a_toy_problem(self, coin):
        eta, probability, losses = coin
        total = exact_moments([(probability, losses)], [eta]).total
        gradients = torch.tensor([-0.5 * 0.499**2, 0.5 * 0.501**2], dtype=torch.float64)
        same(total.mean, (0.501**2 - 0.499**2) / 4)
        same(total.variance, gradients.var(correction=0).item())
        assert total.mean.item() == pytest.approx(5.0e-4, rel=1e-9)
        assert total.variance.item() == pytest.approx(1.5625e-2, rel=1e-4)
        assert total.standard_error == 0

    def test_outcomes_may_be_passed_one_by_one(self, coin):
        eta, probability, losses = coin
        together = exact_moments([(probability, losses)], [eta]).total
        apart = exact_moments(zip(probability, losses, strict=True), [eta]).total
        assert all(torch.allclose(a, b, rtol=0, atol=1e-15) for a, b in zip(together, apart, strict=True))

    def test_impossible_outcomes_count_zero_whatever_their_gradient(self, coin):
        eta, probability, losses = coin
        outcomes = list(zip(probability, losses, strict=True))
        impossible = (torch.zeros(()), eta * math.nan)
        assert exact_moments([*outcomes, impossible], [eta]) == exact_moments(outcomes, [eta])

    def test_probabilities_that_do_not_sum_to_one_raise(self, coin):
        eta, probability, losses = coin
        with pytest.raises(ValueError, match=r"sum to 0\.5, not to 1: an outcome is missing or was counted twice"):
            exact_moments([(probability[0], losses[0])], [eta])
        with pytest.raises(ValueError, match="sum to 2, not to 1"):
            exact_moments([(probability, losses)] * 2, [eta])

    @pytest.mark.usefixtures("without_type_checks")
    def test_loss_that_is_no_tensor_raises(self, coin):
        eta, probability, _ = coin
        with pytest.raises(ValueError, match="the loss must be a tensor, got float"):
            exact_moments([(probability[0], 0.5)], [eta])

    def test_losses_of_another_shape_than_the_probabilities_raise(self, coin):
        eta, probability, losses = coin
        with pytest.raises(ValueError, match=r"losses of shape \(2,\) do not fit weights of shape \(\)"):
            exact_moments([(probability[0], losses)], [eta])


LOGITS = torch.tensor([0.3, -0.5, 1.1], dtype=torch.float64)
COSTS = st.lists(st.integers(-20, 20), min_size=3, max_size=3).map(lambda x: torch.tensor(x, dtype=torch.float64))


def score_of(logits):
    """``∇ log p`` of each category, (category, logit), in closed form."""
    return torch.eye(3, dtype=torch.float64) - logits.softmax(0)


def variances(costs, baseline):
    """Exact variance of the gradient of each logit; a baseline for all, or one for each."""
    p = LOGITS.softmax(0)
    gradients = (costs[:, None] - baseline) * score_of(LOGITS)
    return p @ (gradients - p @ gradients) ** 2


class TestOptimalBaseline:
    @given(COSTS)
    def test_optimal_baseline_of_each_parameter_minimizes_its_variance(self, costs):
        below, middle, above = (variances(costs, torch.tensor(b)) for b in (-1.0, 0.0, 1.0))
        vertex = (below - above) / (2 * (below - 2 * middle + above))
        found = optimal_baseline(score_of(LOGITS), costs, LOGITS.softmax(0))
        torch.testing.assert_close(found, vertex, rtol=0, atol=1e-9)

    @given(COSTS)
    def test_optimal_baseline_of_the_norm_minimizes_the_total_variance(self, costs):
        below, middle, above = (variances(costs, torch.tensor(b)).sum() for b in (-1.0, 0.0, 1.0))
        vertex = (below - above) / (2 * (below - 2 * middle + above))
        found = optimal_baseline(score_of(LOGITS).norm(dim=1), costs, LOGITS.softmax(0))
        torch.testing.assert_close(found, vertex, rtol=0, atol=1e-9)

    @given(COSTS, st.floats(-30, 30))
    def test_other_baselines_have_a_larger_variance(self, costs, other):
        best = optimal_baseline(score_of(LOGITS), costs, LOGITS.softmax(0))
        assert (variances(costs, best) <= variances(costs, torch.tensor(other)) + 1e-9).all()

    def test_optimal_baseline_differs_from_the_mean_cost(self):
        costs = torch.tensor([5.0, 1.0, -2.0], dtype=torch.float64)
        best = optimal_baseline(score_of(LOGITS).norm(dim=1), costs, LOGITS.softmax(0))
        mean = LOGITS.softmax(0) @ costs
        assert variances(costs, best).sum() < 0.95 * variances(costs, mean).sum()

    def test_sampled_moments_match_the_optimal_baseline(self):
        """False alarms: 1e-6. The standard errors are below 0.0105 (over 400 seeds), and 0.055 is 5.2 of them."""
        torch.manual_seed(0)
        costs = torch.tensor([5.0, 1.0, -2.0], dtype=torch.float64)
        x = Categorical(logits=LOGITS).sample((100_000,))
        exact = optimal_baseline(score_of(LOGITS), costs, LOGITS.softmax(0))
        torch.testing.assert_close(optimal_baseline(score_of(LOGITS)[x], costs[x]), exact, rtol=0, atol=0.055)

    def test_optimal_baseline_is_zero_without_score(self):
        score = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
        assert optimal_baseline(score, torch.tensor([3.0, 3.0])).tolist() == [0, 3]

    def test_impossible_outcomes_are_ignored(self):
        score, signal = torch.tensor([1.0, 1.0, math.inf]), torch.tensor([1.0, 3.0, math.nan])
        assert optimal_baseline(score, signal, torch.tensor([0.5, 0.5, 0.0])) == 2

    @pytest.mark.usefixtures("without_type_checks")
    @pytest.mark.parametrize("name", ["signal", "weight"])
    def test_signal_and_weight_need_one_number_per_sample(self, name):
        arguments = {"score": torch.ones(4, 2), "signal": torch.ones(4), "weight": torch.ones(4)}
        with pytest.raises(ValueError, match=rf"{name} must have shape \(4,\), one number per sample, got \(4, 2\)"):
            optimal_baseline(**{**arguments, name: torch.ones(4, 2)})
