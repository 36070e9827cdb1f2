import math

import numpy as np
import pytest
import torch
from scipy import stats

from zoo._stats import Estimate, bootstrap_interval, interquartile_mean, jackknife_interval, mean


def variances(sd, batches=10, size=20):
    return (sd * torch.randn(batches, size)).var(1)


def coverage(interval, exact):
    found = [interval() for _ in range(400)]
    return sum(each.low < exact < each.high for each in found) / 400


def test_jackknife_value_is_mean_over_batches():
    assert jackknife_interval(torch.tensor([1.0, 3.0])).value == 2


def test_jackknife_ratio_is_ratio_of_means():
    assert jackknife_interval(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 7.0])).value == 0.5


def test_jackknife_interval_of_variance_has_nominal_coverage():
    assert coverage(lambda: jackknife_interval(variances(3.0)), 9.0) == pytest.approx(0.95, abs=0.05)


def test_jackknife_interval_of_ratio_has_nominal_coverage():
    assert coverage(lambda: jackknife_interval(variances(3.0), variances(1.0)), 9.0) == pytest.approx(0.95, abs=0.05)


def test_jackknife_interval_excludes_wrong_variance():
    assert coverage(lambda: jackknife_interval(variances(3.0)), 16.0) < 0.2


def test_jackknife_ratio_of_correlated_batches_has_narrow_interval():
    shared = variances(1.0)
    together, apart = jackknife_interval(4 * shared, shared), jackknife_interval(4 * shared, variances(1.0))
    assert together.low == pytest.approx(together.high)
    assert apart.high / apart.low > 1.2


def test_jackknife_interval_of_constant_has_zero_width():
    assert jackknife_interval(torch.zeros(5)) == Estimate(0, 0, 0)
    assert math.isnan(jackknife_interval(torch.zeros(5), torch.zeros(5)).value)


def test_interquartile_mean_drops_outer_quarters():
    values = np.array([0, 1, 2, 3, 4, 5, 6, 1000.0])[:, None]
    assert interquartile_mean(values) == 3.5 != mean(values)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_statistic_is_computed_per_point(statistic):
    assert statistic(np.array([[1.0, 10.0], [3.0, 30.0]])).tolist() == [2, 20]


def test_bootstrap_interval_of_mean_matches_student_t_with_many_runs():
    values = np.random.default_rng(1).normal(5, 2, size=(400, 1))
    low, high = bootstrap_interval(values, mean)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values[:, 0]))
    np.testing.assert_allclose([low[0], high[0]], expected, atol=0.02)


def test_bootstrap_resamples_whole_runs():
    values = np.random.default_rng(1).normal(size=(10, 1)) + np.array([[0.0, 7.0]])
    low, high = bootstrap_interval(values, mean)
    np.testing.assert_allclose(low[1] - low[0], 7)
    np.testing.assert_allclose(high[1] - high[0], 7)


def test_bootstrap_interval_is_deterministic():
    values = np.random.default_rng(1).normal(size=(5, 3))
    one, other = bootstrap_interval(values, mean), bootstrap_interval(values, mean)
    np.testing.assert_array_equal(one, other)
