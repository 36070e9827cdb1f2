import pytest
import torch

from zoo.gradients import Reinforce, exact_moments, optimal_baseline
from zoo.gradients.control_variates import ControlVariate, optimal_scaling

SCORE = torch.tensor([[0.5, -2.0], [-1.0, 0.3], [0.25, 1.5], [2.0, -0.4]], dtype=torch.float64)
SIGNAL = torch.tensor([3.0, -1.0, 4.0, 0.5], dtype=torch.float64)
EACH = SIGNAL.unsqueeze(-1).expand_as(SCORE)


class TestTheScaling:
    def test_scaling_per_parameter_is_its_optimal_baseline(self):
        torch.testing.assert_close(optimal_scaling(SCORE, EACH).squeeze(0), optimal_baseline(SCORE, SIGNAL))

    def test_scaling_per_factor_is_the_optimal_baseline_of_the_norm_of_the_score(self):
        expected = optimal_baseline(SCORE.norm(dim=-1), SIGNAL)
        torch.testing.assert_close(optimal_scaling(SCORE, SIGNAL).squeeze(0), expected)

    @pytest.mark.parametrize("signal", [EACH, SIGNAL], ids=["parameter", "factor"])
    def test_leave_one_out_scaling_is_that_of_the_other_samples(self, signal):
        found = optimal_scaling(SCORE, signal, leave_one_out=True)
        for k in range(len(SCORE)):
            others = [j for j in range(len(SCORE)) if j != k]
            torch.testing.assert_close(found[k], optimal_scaling(SCORE[others], signal[others]).squeeze(0))

    def test_left_out_sample_has_no_effect_however_large(self):
        score = torch.tensor([1e9, 1.0, 2.0])
        found = optimal_scaling(score, torch.tensor([7.0, 1.0, 3.0]), leave_one_out=True)
        assert found[0].item() == pytest.approx((1 + 12) / 5)

    def test_scaling_is_zero_without_score(self):
        assert optimal_scaling(torch.zeros(3), torch.ones(3)).item() == 0

    def test_samples_may_be_in_any_dimension(self):
        torch.testing.assert_close(optimal_scaling(SCORE.T, EACH.T, dim=1), optimal_scaling(SCORE, EACH).T)


class TestTheBaseline:
    @pytest.mark.parametrize("estimate", ["leave_one_out", "same_samples"])
    def test_value_is_the_optimal_scaling(self, estimate):
        value = ControlVariate(estimate=estimate)(EACH, context=SCORE).value
        expected = optimal_scaling(SCORE, EACH, leave_one_out=estimate == "leave_one_out")
        torch.testing.assert_close(value, expected.expand_as(EACH))

    def test_scaling_of_extra_samples_is_used(self):
        baseline = ControlVariate(num_extra_samples=100)
        assert baseline.num_extra_samples == 100
        torch.testing.assert_close(baseline(SIGNAL, context=SIGNAL + 1).value, SIGNAL + 1)

    def test_scaling_reduces_the_variance(self):
        theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        coin = torch.distributions.Bernoulli(logits=theta)
        draws = torch.cartesian_prod(*[coin.enumerate_support()] * 3)
        log_prob, signal = coin.log_prob(draws), 5 + 2 * draws
        score = draws - coin.probs.detach()

        def moments(reinforce):
            losses = [reinforce(*parts).loss.mean() for parts in zip(log_prob, signal, score, strict=True)]
            return exact_moments([(log_prob.sum(1).exp(), torch.stack(losses))], [theta]).total

        plain, scaled = moments(Reinforce()), moments(Reinforce(ControlVariate()))
        torch.testing.assert_close(scaled.mean, plain.mean)
        assert scaled.variance < plain.variance / 10
        biased = moments(Reinforce(ControlVariate(estimate="same_samples")))
        assert (biased.mean - plain.mean).abs() > 1e-3

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"scaling": "site"}, "scaling must be"),
            ({"estimate": "all"}, "estimate must be"),
            ({"num_extra_samples": -1}, "num_extra_samples must be 0 or more, got -1"),
        ],
    )
    def test_invalid_options_raise(self, options, sentence, without_type_checks):
        with pytest.raises(ValueError, match=sentence):
            ControlVariate(**options)

    def test_missing_context_or_single_sample_raises(self):
        with pytest.raises(ValueError, match="needs context="):
            ControlVariate()(SIGNAL)
        with pytest.raises(ValueError, match="at least 2 along dimension 0, got 1"):
            ControlVariate()(SIGNAL[:1], context=SIGNAL[:1])
