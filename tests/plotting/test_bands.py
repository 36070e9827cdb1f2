import numpy as np
import pytest
from scipy import stats

from zoo.plotting.bands import bootstrap_interval, interquartile_mean, make_band, mean

STEPS = np.array([0.0, 10.0, 20.0])


def constant(value, x=STEPS):
    return x, np.full(len(x), float(value))


def test_runs_with_different_x_are_interpolated_on_one_grid():
    line = make_band([(np.array([0.0, 20.0]), np.array([0.0, 20.0])), (STEPS, STEPS)])
    np.testing.assert_allclose(line.center, line.x)
    np.testing.assert_allclose(line.interval[0], line.interval[1])


def test_grid_is_the_common_interval():
    line = make_band([constant(1), constant(3, STEPS + 5), constant(2, np.array([-5.0, 17.0]))])
    assert (line.x[0], line.x[-1]) == (5, 17)
    assert line.num_runs == 3


def test_logarithmic_grid_has_equal_ratios():
    x = make_band([constant(1, np.array([1.0, 100.0]))], spacing=np.geomspace).x
    np.testing.assert_allclose(x[1:] / x[:-1], x[1] / x[0])


def test_single_run_is_its_center_and_has_no_interval():
    line = make_band([(STEPS, STEPS**2)])
    assert line.center[-1] == 400
    assert line.interval is None


def test_runs_of_a_single_point_give_a_single_point():
    assert make_band([constant(1, np.array([7.0])), constant(3, np.array([7.0]))]).center.tolist() == [2]


def test_interquartile_mean_drops_the_outer_quarters():
    values = np.array([0, 1, 2, 3, 4, 5, 6, 1000.0])[:, None]
    assert interquartile_mean(values) == 3.5 != mean(values)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_statistic_is_computed_at_each_point(statistic):
    assert statistic(np.array([[1.0, 10.0], [3.0, 30.0]])).tolist() == [2, 20]


def test_bootstrap_interval_of_the_mean_equals_students_for_many_runs():
    values = np.random.default_rng(1).normal(5, 2, size=(400, 1))
    low, high = bootstrap_interval(values, mean)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values[:, 0]))
    np.testing.assert_allclose([low[0], high[0]], expected, atol=0.02)


def test_whole_runs_are_resampled():
    values = np.random.default_rng(1).normal(size=(10, 1)) + np.array([[0.0, 7.0]])
    low, high = bootstrap_interval(values, mean)
    np.testing.assert_allclose(low[1] - low[0], 7)
    np.testing.assert_allclose(high[1] - high[0], 7)


def test_interval_is_reproducible():
    values = np.random.default_rng(1).normal(size=(5, 3))
    one, other = bootstrap_interval(values, mean), bootstrap_interval(values, mean)
    np.testing.assert_array_equal(one, other)


BAD = [
    ([], "^there are no runs"),
    ([(STEPS, STEPS[:2])], r"^y of run 1 must have the shape \(P=3\), got \(2,\)$"),
    ([constant(1), (STEPS[::-1], STEPS)], "^x of run 2 must increase"),
    ([constant(np.nan)], "^y of run 1 must be finite"),
    (
        [constant(1), constant(1, STEPS + 30)],
        "^the runs have no x in common: one starts at 30, another ends at 20$",
    ),
]


@pytest.mark.parametrize(("runs", "sentence"), BAD)
def test_invalid_runs_raise(runs, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_band(runs)
