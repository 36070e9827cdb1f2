"""Every estimate's expectation, summed over all outcomes, is the gradient of the expected cost."""

import copy

import pytest
import torch
from torch import nn

from zoo.gradients import Baseline, LearnedBaseline, LeaveOneOutBaseline, MovingAverageBaseline, Reinforce, RunningStd

MASK = torch.tensor([[[True, False], [True, True], [False, False]]])  # the second input has no other sample


def surrogate(estimator):
    """Loss of one outcome; each outcome meets the estimator in the same state."""
    state = copy.deepcopy(estimator.state_dict())

    def loss(draw):
        estimator.load_state_dict(state)
        out = estimator(*draw)
        return out.loss.sum() / draw.log_prob[0].numel()

    return loss


def bias(problem, loss):
    return (problem.mean(loss) - problem.true_gradient()).abs().max().item()


def used_scale():
    scale = RunningStd()
    scale.update(torch.tensor([-7.0, 1.0, 5.0]))
    assert scale.value > 2
    return scale


def test_enumerated_gradient_equals_one_derived_by_hand(one_step):
    problem = one_step()
    p = problem.parameters.softmax(-1)
    # outcome 0 takes category 0 everywhere, the last one category 1: their signals are the table of costs
    cost = torch.stack([problem.draws[0].signal[0, 0], problem.draws[-1].signal[0, 0]], dim=-1)
    by_hand = p * (cost - (p * cost).sum(-1, keepdim=True)) / 2
    assert problem.probability.sum().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(problem.true_gradient(), by_hand.flatten(), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("without_type_checks")  # for speed: these tests make some thousand calls
class TestUnbiased:
    def test_independent_samples_have_an_unbiased_gradient(self, one_step, baseline):
        assert bias(one_step(), surrogate(Reinforce(baseline))) < 1e-9

    def test_eval_mode_is_unbiased(self, one_step, baseline):
        assert bias(one_step(), surrogate(Reinforce(baseline).eval())) < 1e-9

    @pytest.mark.parametrize("credit", ["total", "to go"])
    def test_sequential_choices_are_unbiased(self, two_steps, baseline, credit):
        assert bias(two_steps(credit), surrogate(Reinforce(baseline))) < 1e-9

    def test_masked_program_is_unbiased(self, one_step, baseline):
        assert bias(one_step(MASK), surrogate(Reinforce(baseline))) < 1e-9

    @pytest.mark.parametrize("credit", ["total", "to go"])
    def test_episodes_that_end_early_are_unbiased(self, two_steps, baseline, credit):
        assert bias(two_steps(credit, ends=True), surrogate(Reinforce(baseline))) < 1e-9

    def test_gradient_of_a_reward_has_the_opposite_sign(self, one_step, baseline):
        problem = one_step()
        ascent = -problem.mean(surrogate(Reinforce(baseline, maximize=True)))
        torch.testing.assert_close(ascent, problem.true_gradient(), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("mask", [None, MASK], ids=["all valid", "masked"])
    def test_running_scale_divides_the_gradient_by_a_known_factor(self, one_step, baseline, mask):
        problem, scale = one_step(mask), used_scale()
        expected = problem.true_gradient() / scale.value
        torch.testing.assert_close(problem.mean(surrogate(Reinforce(baseline, scale))), expected, rtol=0, atol=1e-9)

    def test_sum_with_the_pathwise_gradient_is_unbiased(self, one_step, baseline):
        problem, score = one_step(differentiable_cost=True), surrogate(Reinforce(baseline))
        assert bias(problem, lambda draw: draw.signal.mean() + score(draw)) < 1e-9


class LearnsFirst(MovingAverageBaseline):
    def forward(self, signal, context=None, mask=None):
        self.update(signal, mask)
        self.mean.end_step()  # else the value stays what it was when the step began
        return super().forward(signal, context, mask)


class MeanOfAllSamples(Baseline):
    def predict(self, signal, context, mask):
        return signal.mean(1, keepdim=True)


class LeavesOneOutTwice(Baseline):
    def predict(self, signal, context, mask):
        once = LeaveOneOutBaseline(1).predict(signal, context, mask)
        return once + LeaveOneOutBaseline(1).predict(signal - once, context, mask)


def divided_by_the_number_of_costly_samples(draw):
    return Reinforce()(*draw).loss.sum() / (draw.signal > 3).sum().clamp(min=1)


def normalized_by_its_own_batch(draw):
    return (draw.log_prob * (draw.signal - draw.signal.mean()) / (draw.signal.std() + 1e-6)).mean()


def with_a_baseline_that_sees_the_sample(draw):
    return Reinforce(LearnedBaseline(nn.Identity()))(draw.log_prob, draw.signal, context=draw.signal / 2).loss.mean()


def with_a_baseline_that_is_not_detached(draw):
    torch.manual_seed(0)
    value = nn.Linear(3, 1).double()(draw.context).squeeze(-1)
    return (draw.log_prob * (draw.signal - value)).mean()


class TestPlantedMistake:
    """The same check must fail here, or it would show nothing."""

    @pytest.mark.parametrize(
        "mistake",
        [
            pytest.param(surrogate(Reinforce(LearnsFirst())), id="moving average that learns before it is used"),
            pytest.param(surrogate(Reinforce(MeanOfAllSamples())), id="mean that includes the sample itself"),
            pytest.param(surrogate(Reinforce(LeavesOneOutTwice())), id="leave-one-out upon leave-one-out"),
            pytest.param(divided_by_the_number_of_costly_samples, id="divisor that depends on the samples"),
            pytest.param(normalized_by_its_own_batch, id="scale that depends on the samples"),
            pytest.param(with_a_baseline_that_sees_the_sample, id="baseline that sees the sample"),
            pytest.param(with_a_baseline_that_is_not_detached, id="baseline that is not detached"),
        ],
    )
    def test_independent_samples_are_unbiased(self, one_step, mistake):
        assert bias(one_step(), mistake) > 1e-2

    def test_attached_signal_is_detected(self, one_step):
        problem = one_step(differentiable_cost=True)
        assert bias(problem, lambda draw: (draw.signal + draw.log_prob * draw.signal).mean()) > 1e-2

    @pytest.mark.parametrize("credit", ["total", "to go"])
    def test_leave_one_out_over_time_is_detected(self, two_steps, credit):
        assert bias(two_steps(credit), surrogate(Reinforce(LeaveOneOutBaseline(dim=0)))) > 1e-2

    def test_costs_of_the_past_only_are_detected(self, two_steps):
        first_cost_only = two_steps("to go")
        assert bias(first_cost_only, lambda draw: (draw.log_prob[1:] * draw.signal[1:]).sum() / 2) > 1e-2

    def test_dropped_downstream_cost_is_detected(self, two_steps):
        def with_its_own_cost_alone(draw):
            own = torch.cat([draw.signal[:1] - draw.signal[1:], draw.signal[1:]])
            return Reinforce()(draw.log_prob, own).loss.sum() / 2

        assert bias(two_steps("to go"), with_its_own_cost_alone) > 1e-2

    def test_forgotten_mask_is_detected(self, one_step):
        problem = one_step(MASK)
        assert bias(problem, lambda draw: Reinforce()(draw.log_prob, draw.signal).loss.mean()) > 1e-2


@pytest.mark.usefixtures("without_type_checks")
class TestVariance:
    """Exact, and equal to the published figures of toy problems as far as those have digits."""

    def tied_bits(self, enumerate_samples, bits, target, eta, samples):
        """Cost ``|x - target|²`` of bits that share one logit."""
        eta = torch.tensor(eta, dtype=torch.float64, requires_grad=True)
        x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * bits).reshape(-1, bits)
        log_p = nn.functional.logsigmoid((2 * x - 1) * eta).sum(-1)
        cost = (x - torch.tensor(target, dtype=torch.float64)).square().sum(-1)
        return enumerate_samples(eta, log_p[None], cost[None], samples)

    @pytest.mark.parametrize(
        ("eta", "gradient", "plain", "leave_one_out"),
        [(0.0, 5.0e-4, 1.5625e-2, 2.5e-7), (2.0, 2.0999e-4, 6.52e-3, 1.659e-7)],
    )
    def test_variance_equals_published_value_of_the_rebar_and_relax_toy_problem(
        self, enumerate_samples, eta, gradient, plain, leave_one_out
    ):
        one, two = (self.tied_bits(enumerate_samples, 1, [0.499], eta, samples) for samples in (1, 2))
        assert one.true_gradient().item() == pytest.approx(gradient, rel=1e-4)
        assert one.variance(surrogate(Reinforce())).item() == pytest.approx(plain, rel=1e-3)
        assert two.variance(surrogate(Reinforce(LeaveOneOutBaseline(1)))).item() == pytest.approx(
            leave_one_out, rel=1e-3
        )

    @pytest.mark.parametrize(
        ("eta", "samples", "gradient", "plain", "leave_one_out"),
        [
            (0.0, 2, -0.0450, 0.219, 0.00728),
            (0.0, 3, -0.0450, 0.146, 0.00320),
            (-4.0, 2, -0.0031793, 0.0168, 3.81e-4),
        ],
    )
    def test_variance_equals_published_value_of_three_tied_bits(
        self, enumerate_samples, eta, samples, gradient, plain, leave_one_out
    ):
        problem = self.tied_bits(enumerate_samples, 3, [0.6, 0.51, 0.48], eta, samples)
        assert problem.true_gradient().item() == pytest.approx(gradient, rel=1e-4)
        assert problem.variance(surrogate(Reinforce())).item() == pytest.approx(plain, rel=5e-3)
        assert problem.variance(surrogate(Reinforce(LeaveOneOutBaseline(1)))).item() == pytest.approx(
            leave_one_out, rel=5e-3
        )
