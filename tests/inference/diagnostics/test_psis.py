import math
import warnings

import pyro
import pyro.distributions as dist
import pyro.infer.importance
import pytest
import torch
from pyro import poutine
from pyro.infer.importance import psis_diagnostic

from zoo.inference.diagnostics import ParetoK, PosteriorSamples, fit_pareto_k, pareto_k, sample_posterior


def weighed(log_weights):
    return PosteriorSamples({}, log_weights, torch.zeros_like(log_weights), {}, {}, False)


def pareto(k, draws=40_000):
    """Logarithms of weights whose tail index is ``k``: ``w = u^-k``."""
    return -k * torch.rand(draws).log()


class TestTheTailIndex:
    @pytest.mark.parametrize("k", [0.2, 0.5, 0.9, 1.5])
    def test_k_hat_equals_shape_of_pareto_distribution(self, k):
        found = fit_pareto_k(pareto(k))
        assert abs(found.value - k) < 4.9 * found.standard_error
        assert found.standard_error < 0.11

    def test_k_hat_distinguishes_another_shape(self):
        found = fit_pareto_k(pareto(0.3))
        assert abs(found.value - 0.9) > 4.9 * found.standard_error

    def test_k_hat_has_standard_error_of_repeated_fits(self):
        found = [fit_pareto_k(pareto(0.5, 4000)) for _ in range(200)]
        spread = torch.tensor([each.value for each in found]).std().item()
        assert spread == pytest.approx(found[0].standard_error, rel=0.35)

    def test_k_hat_equals_pyros(self, monkeypatch):
        weights = pareto(0.6, 1000)
        given = lambda *args, **kwargs: (weights.clone(), None, None)  # noqa: E731
        monkeypatch.setattr(pyro.infer.importance, "vectorized_importance_weights", given)
        assert fit_pareto_k(weights).value == pytest.approx(psis_diagnostic(None, None, num_particles=1000))

    def test_k_hat_is_independent_of_evidence(self):
        weights = pareto(0.6)
        assert fit_pareto_k(weights - 1e4).value == pytest.approx(fit_pareto_k(weights).value, abs=1e-6)

    def test_k_hat_of_equal_weights_is_0(self, normals):
        right = normals.with_posterior()
        assert fit_pareto_k(sample_posterior(right.model, right.guide, num_samples=1000).log_weights).value == 0
        assert fit_pareto_k(torch.full((1000,), -3.0)).value == 0

    def test_k_hat_is_infinite_if_few_weights_dominate(self):
        for others in (-1e5, -50.0):
            assert fit_pareto_k(torch.cat([torch.full((999,), others), torch.zeros(1)])).value == math.inf

    def test_k_hat_of_too_few_samples_is_nan(self):
        assert math.isnan(fit_pareto_k(pareto(0.1, 30)).value)

    @pytest.mark.parametrize("draws", [1000, 4000, 20_000, 100_000])
    def test_k_hat_of_few_distinct_values_is_nan(self, draws):
        """A fit to these would find anything from -5 to infinity, by how many of them there are."""
        weights = torch.tensor([0.49 / 0.495, 0.02 / 0.01]).log()
        assert math.isnan(fit_pareto_k(weights[torch.bernoulli(torch.full((draws,), 0.01)).long()]).value)

    def test_k_hat_of_discrete_guide_with_many_values_is_small(self):
        bits, guide = (torch.distributions.Bernoulli(torch.full((200,), p)) for p in (0.5, 0.49))
        z = guide.sample((4000,))
        assert abs(fit_pareto_k((bits.log_prob(z) - guide.log_prob(z)).sum(-1)).value) < 0.4


class TestTheVerdict:
    def test_verdict_of_normal_guide_depends_on_its_width(self, normals):
        """The tail index is ``1 - (its variance) / (the posterior's)``."""
        right = normals.with_posterior()
        for share, verdict in ((0.9, "good"), (0.15, "unreliable")):
            narrow = right._replace(sd=right.sd * share)
            assert pareto_k(sample_posterior(narrow.model, narrow.guide, num_samples=20_000)).verdict == verdict

    def test_point_mass_guide_has_no_k_hat(self):
        def model():
            pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("bit", dist.Bernoulli(0.5))

        def guide(sd):
            pyro.sample("mean", dist.Normal(torch.ones(3), sd).to_event(1))
            pyro.sample("bit", dist.Bernoulli(torch.tensor(1.0)))  # may be all that the posterior has

        for points in (3, 1):
            sd = torch.cat([torch.full((points,), 1e-30), torch.ones(3 - points)])
            collapsed = sample_posterior(model, lambda sd=sd: guide(sd), num_samples=500)
            assert collapsed.num_constant_elements == points
            with pytest.raises(ValueError, match=f"^no k-hat: {'a value' if points == 1 else '3 values'} of the guide"):
                pareto_k(collapsed)
        assert math.isfinite(pareto_k(sample_posterior(model, lambda: guide(torch.ones(3)), num_samples=5000)).value)

    def test_verdict_changes_at_0_5_and_0_7(self):
        verdicts = [ParetoK(k, 0.1, 10_000).verdict for k in (0.49, 0.5, 0.69, 0.7, math.inf, math.nan)]
        assert verdicts == ["good", "usable", "usable", "unreliable", "unreliable", "unknown"]

    def test_k_hat_is_printed_with_verdict(self):
        assert "unreliable, the guide misses" in str(ParetoK(0.93, 0.1, 10_000))
        assert str(ParetoK(0.1, 0.1, 50)).endswith("take more samples to be sure")
        assert "take more" not in str(ParetoK(0.1, 0.1, 5000))
        assert "unknown, the largest weights are too few or too similar" in str(fit_pareto_k(torch.zeros(20)))

    def test_too_few_samples_for_k_hat_warn(self):
        with pytest.warns(UserWarning, match=r"60 samples are too few"):
            pareto_k(weighed(pareto(0.1, 60)))
        with pytest.warns(UserWarning, match=r"too few for a k-hat of 0\.6\d: take at least [\d,]+$"):
            pareto_k(weighed(pareto(0.64, 300)))

    def test_enough_samples_for_k_hat_do_not_warn(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pareto_k(weighed(pareto(0.2)))

    def test_k_hat_of_subsampled_program_raises(self):
        with pytest.raises(ValueError, match=r"^no k-hat: the samples use subsamples"):
            pareto_k(weighed(pareto(0.2))._replace(subsampled=True))

    def test_k_hat_of_scaled_terms_raises(self):
        @poutine.scale(scale=0.1)
        def program():
            pyro.sample("z", dist.Normal(torch.tensor(0.0), 1.0))

        with pytest.raises(ValueError, match=r"^no k-hat: terms are scaled"):
            pareto_k(sample_posterior(program, program, num_samples=200))

    def test_k_hat_of_nonfinite_weights_raises(self):
        with pytest.raises(FloatingPointError, match=r"^1 of 3 samples"):
            pareto_k(weighed(torch.tensor([0.0, torch.nan, 1.0])))
