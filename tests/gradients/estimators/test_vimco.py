import math
from itertools import product

import pytest
import torch

from zoo.gradients import Reinforce
from zoo.gradients.estimators import VIMCOBaseline, iwae_bound, leave_one_out_bounds


@pytest.fixture
def log_weights():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)


class TestBound:
    def test_bound_is_the_logarithm_of_the_mean_weight(self, log_weights):
        torch.testing.assert_close(iwae_bound(log_weights), log_weights.exp().mean(0).log())
        torch.testing.assert_close(iwae_bound(log_weights, dim=1), log_weights.exp().mean(1).log())

    def test_extreme_log_weights_do_not_overflow(self):
        assert iwae_bound(torch.tensor([-5000.0, -5000.0])).item() == -5000
        assert iwae_bound(torch.tensor([5000.0, -5000.0])).item() == pytest.approx(5000 - math.log(2))


class TestLeavingOneOut:
    def test_bounds_equal_the_formula(self, log_weights):
        bounds = leave_one_out_bounds(log_weights)
        for k, i in product(range(4), range(3)):
            others = [log_weights[j, i].item() for j in range(4) if j != k]
            replaced = sum(map(math.exp, others)) + math.exp(sum(others) / 3)
            assert bounds[k, i].item() == pytest.approx(math.log(replaced / 4), abs=1e-12)

    def test_samples_may_be_in_any_dimension(self, log_weights):
        torch.testing.assert_close(leave_one_out_bounds(log_weights.T, dim=1), leave_one_out_bounds(log_weights).T)

    def test_bound_does_not_depend_on_the_sample_left_out(self, log_weights):
        changed = log_weights.clone()
        changed[2] += 7
        before, after = leave_one_out_bounds(log_weights), leave_one_out_bounds(changed)
        assert torch.equal(before[2], after[2])
        assert (before[[0, 1, 3]] != after[[0, 1, 3]]).all()

    def test_single_sample_raises(self):
        with pytest.raises(ValueError, match="needs at least 2 samples along dimension 0, got 1"):
            leave_one_out_bounds(torch.zeros(1, 3))


class TestGradient:
    """Of the expected bound of three samples from a categorical, over all outcomes."""

    SAMPLES = 3

    @pytest.fixture
    def logits(self):
        return torch.tensor([0.3, -0.4, 0.9, 0.1], dtype=torch.double, requires_grad=True)

    @pytest.fixture
    def log_p(self):
        return torch.tensor([-1.0, -3.0, -2.0, 0.5], dtype=torch.double)

    def mean_gradient(self, logits, log_p, loss):
        """With the exact gradient beside it."""
        total, mean = 0, 0
        for outcome in product(range(4), repeat=self.SAMPLES):
            log_q = logits.log_softmax(0)[list(outcome)]
            probability, log_weights = log_q.sum().exp(), log_p[list(outcome)] - log_q
            total = total + probability * iwae_bound(log_weights)
            (estimate,) = torch.autograd.grad(loss(log_q, log_weights), logits, retain_graph=True)
            mean = mean + probability.detach() * estimate
        return torch.autograd.grad(total, logits)[0], mean

    def test_of_vimco_is_exact_on_average(self, logits, log_p):
        def loss(log_q, log_weights):
            bound = iwae_bound(log_weights)
            out = Reinforce(VIMCOBaseline(dim=0), maximize=True)(log_q, bound, context=log_weights)
            return bound - out.loss.sum()

        exact, mean = self.mean_gradient(logits, log_p, loss)
        torch.testing.assert_close(mean, exact, rtol=0, atol=1e-12)
        assert exact.abs().max() > 0.01

    def test_baseline_that_sees_its_own_weight_is_detected(self, logits, log_p):
        def loss(log_q, log_weights):
            bound = iwae_bound(log_weights)
            return bound + (log_q * (bound - leave_one_out_bounds(log_weights).roll(1, 0)).detach()).sum()

        exact, mean = self.mean_gradient(logits, log_p, loss)
        assert (mean - exact).abs().max() > 1e-3


@pytest.mark.parametrize("context", [None, torch.zeros(3)])
def test_the_baseline_asks_for_the_weight_of_each_sample(context):
    with pytest.raises(ValueError, match="needs context=, the log-weight of each sample"):
        VIMCOBaseline(dim=0)(torch.zeros(2), context=context)
