import math

import pytest
import torch

from zoo.inference.diagnostics import StoppingRule, average_best_window, average_window, split_r_hat


def autoregressive(steps, correlation, parameters=1, mean=0.0):
    """A stationary chain of standard normals, each ``correlation`` with the one before."""
    noise = torch.randn(steps, parameters)
    chain = [noise[0]]
    for each in noise[1:]:
        chain.append(correlation * chain[-1] + math.sqrt(1 - correlation**2) * each)
    return torch.stack(chain) + mean


class TestRHat:
    def test_r_hat_of_stationary_chain_is_near_1(self):
        assert split_r_hat(torch.randn(2000, 3)).sub(1).abs().max() < 0.01

    def test_r_hat_of_drifting_chain_is_large(self):
        assert split_r_hat(torch.randn(500, 1) + torch.linspace(0, 10, 500).unsqueeze(-1)) > 1.5

    def test_r_hat_equals_formula_of_the_halves(self):
        x = torch.randn(10, 1) + torch.arange(10.0).unsqueeze(-1)
        halves = x.reshape(2, 5)
        within, between = halves.var(1).mean(), halves.mean(1).var()
        assert split_r_hat(x).item() == pytest.approx((((4 / 5) * within + between) / within).sqrt().item())

    def test_r_hat_of_constant_is_exactly_1(self):
        assert split_r_hat(torch.ones(20, 1)) == 1


class TestTheAverage:
    def test_average_has_effective_sample_size_of_autoregressive_chain(self):
        found = average_window(autoregressive(10_000, 0.9, parameters=2))
        assert found.effective_sample_size.div(10_000).tolist() == pytest.approx([0.1 / 1.9] * 2, rel=0.25)

    def test_standard_error_of_average_is_calibrated(self):
        """Without half the distance between the halves the errors' mean square would be 1."""
        found = [average_window(autoregressive(1000, 0.8, parameters=200, mean=3.0)) for _ in range(2)]
        z = torch.cat([(each.mean - 3) / each.standard_error for each in found])
        assert (z.abs() < 1.96).double().mean() > 0.95
        assert z.square().mean() > 0.3

    def test_standard_error_is_larger_under_drift(self):
        chain = torch.randn(1000, 1)
        still, moving = average_window(chain), average_window(chain + torch.linspace(0, 1, 1000).unsqueeze(-1))
        assert moving.standard_error > 4 * still.standard_error
        assert moving.standard_error.item() == pytest.approx(0.25, abs=0.1)  # half of the halves' distance


class TestTheWindow:
    def test_window_covers_most_of_stationary_chain(self):
        assert average_best_window(torch.randn(2000, 2)).num_iterates > 1000

    @pytest.mark.parametrize("distance", [1, 30])
    def test_window_excludes_transient(self, distance):
        far = torch.linspace(distance, 0, 400).unsqueeze(-1)
        chain = torch.cat([far, torch.zeros(600, 1)]) + 0.3 * torch.randn(1000, 1)
        assert 300 < average_best_window(chain).num_iterates <= 700

    def test_window_with_smallest_r_hat_would_include_transient(self):
        chain = torch.cat([torch.linspace(1, 0, 400).unsqueeze(-1), torch.zeros(600, 1)]) + torch.randn(1000, 1)
        assert split_r_hat(chain) < 1.1
        assert average_best_window(chain).standard_error < average_window(chain).standard_error / 2

    def test_no_window_while_one_parameter_drifts(self):
        chain = torch.randn(500, 3)
        chain[:, 1] += torch.linspace(0, 100, 500)
        assert average_best_window(chain) is None

    def test_window_is_chosen_in_units_of_parameters(self):
        """One parameter has long settled, the other but lately: which of them counts?"""
        chain = torch.randn(1000, 2)
        chain[:700, 1] += torch.linspace(2, 0, 700)
        lengths = [average_best_window(chain, unit=torch.tensor([1.0, unit])).num_iterates for unit in (1.0, 1e6)]
        assert lengths[0] < 600 < lengths[1]


def run(rule, iterates):
    """Step at which a rule stops; None if it does not."""
    return next((step for step, iterate in enumerate(iterates, start=1) if rule.update(iterate)), None)


class TestTheRule:
    def test_rule_stops_within_tolerance_and_reports_it(self):
        chain = torch.cat([torch.linspace(10, 0, 300).unsqueeze(-1).expand(-1, 2), torch.zeros(20_000, 2)])
        rule = StoppingRule(tolerance=0.1)
        step = run(rule, chain + torch.randn_like(chain))
        status = rule.status()
        assert 600 < step < 10_000
        assert status.stop
        assert status.half_width <= 0.1
        assert status.average.mean.abs().max() < 0.1
        assert status.start > 200
        assert str(status).startswith(
            f"step {step}: stop, the average since step {status.start} estimates all 2 parameters"
        )
        assert str(status).endswith("with 95% confidence, if the iterates are stationary")

    def test_rule_continues_while_parameters_drift(self):
        drift = torch.linspace(0, 300, 3000).unsqueeze(-1)
        rule = StoppingRule(tolerance=0.1)
        assert run(rule, drift + torch.randn(3000, 1)) is None
        assert str(rule.status()) == "step 3000: continue, the iterates have not converged"

    def test_rule_continues_under_drift_that_r_hat_misses(self):
        drift = torch.linspace(0, 1, 1000).unsqueeze(-1)
        rule = StoppingRule(tolerance=0.1)
        chain = drift + torch.randn(1000, 1)
        assert split_r_hat(chain) < 1.1
        assert run(rule, chain) is None
        assert "continue, the average since" in str(rule.status())

    def test_confidence_of_rule_is_calibrated(self):
        """Of 20 chains at least 16; if it were right in 95 % only, it would be fewer once in 390 times."""
        right = 0
        for _ in range(20):
            rule = StoppingRule(tolerance=0.2, check_interval=300)
            assert run(rule, autoregressive(4000, 0.7, parameters=2)) is not None
            right += bool(rule.status().average.mean.abs().max() < 0.2)
        assert right >= 16

    def test_rule_uses_unit_of_each_parameter(self):
        chain = torch.randn(1000, 2) * torch.tensor([1.0, 100.0])
        assert run(StoppingRule(tolerance=0.3), chain) is None
        assert run(StoppingRule(tolerance=0.3, unit=torch.tensor([1.0, 100.0])), chain) is not None

    def test_rule_stores_means_when_max_iterates_is_reached(self):
        rule = StoppingRule(tolerance=1e-9, max_iterates=300, check_interval=10**6)
        run(rule, torch.arange(1002.0).unsqueeze(-1) + 1)
        assert rule.stride == 4
        assert torch.cat(rule.iterates).equal(4 * torch.arange(250.0) + 2.5)
        assert [x.item() for x in rule.pending] == [1001, 1002]

    def test_rule_averages_all_iterates_of_window(self):
        rule, chain = StoppingRule(tolerance=1e-9, max_iterates=300), torch.randn(1200, 2)
        run(rule, chain)
        status = rule.status()
        torch.testing.assert_close(status.average.mean, chain[status.start - 1 :].mean(0))

    def test_rule_continues_from_state_dict_bit_for_bit(self, tmp_path):
        chain = autoregressive(4000, 0.5, parameters=3)
        whole, first, second = (StoppingRule(tolerance=0.12, max_iterates=400) for _ in range(3))
        step = run(whole, chain)
        assert run(first, chain[:777]) is None
        torch.save(first.state_dict(), tmp_path / "state.pt")
        second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert 777 + run(second, chain[777:]) == step
        assert torch.equal(whole.status().average.mean, second.status().average.mean)
        assert whole.status().half_width == second.status().half_width

    def test_rule_differs_without_state_dict(self):
        chain = autoregressive(4000, 0.5, parameters=3)
        whole, late = (StoppingRule(tolerance=0.12, max_iterates=400) for _ in range(2))
        assert 777 + run(late, chain[777:]) != run(whole, chain)

    def test_rule_copies_parameters(self):
        rule, parameters = StoppingRule(), torch.zeros(2)
        rule.update(parameters)
        parameters += 1
        assert rule.iterates[0].equal(torch.zeros(2))

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"tolerance": 0.0}, "^tolerance must be above 0"),
            ({"tolerance": "a"}, "^tolerance must be above 0, got 'a'"),
            ({"confidence": 1.0}, "^confidence must be above 0 and below 1"),
            ({"max_r_hat": 1.0}, "^max_r_hat must be above 1"),
            ({"check_interval": 0}, "^check_interval must be a whole number of 1 or more"),
            ({"check_interval": 2.5}, r"^check_interval must be a whole number of 1 or more, got 2\.5"),
            ({"max_iterates": 301}, "^max_iterates must be an even number"),
            (
                {"min_window": 500, "max_iterates": 900},
                "^min_window must be at most half of max_iterates, got 500 and 900$",
            ),
            ({"unit": 0.0}, "^unit must be positive and finite"),
            ({"unit": "a"}, "^unit must be a number or a vector of them, got 'a'"),
            ({"unit": torch.tensor([1.0, torch.nan])}, "^unit must be positive and finite"),
        ],
    )
    def test_invalid_options_of_rule_raise(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            StoppingRule(**options)

    def test_number_of_units_must_equal_number_of_parameters(self):
        with pytest.raises(ValueError, match=r"^got 2 parameters, but units for 3$"):
            StoppingRule(unit=torch.ones(3)).update(torch.zeros(2))

    def test_rule_stops_for_constant_parameters(self):
        chain = torch.randn(2000, 2)
        chain[:, 1] = 7
        rule = StoppingRule(tolerance=0.2)
        assert run(rule, chain) is not None
        assert rule.status().average.standard_error[1] == 0
        assert rule.status().average.mean[1] == 7

    def test_invalid_iterates_raise(self):
        rule = StoppingRule()
        rule.update(torch.zeros(2))
        with pytest.raises(ValueError, match=r"^parameters must have shape \(2,\), as before, got shape \(3,\)$"):
            rule.update(torch.zeros(3))
        with pytest.raises(ValueError, match=r"^a parameter is not finite after step 2$"):
            rule.update(torch.tensor([0.0, torch.nan]))
