import numpy as np
import pytest
from scipy import stats

from zoo.plotting.bands import band, bootstrap_interval, interquartile_mean, mean

STEPS = np.array([0.0, 10.0, 20.0])


def constant(value, x=STEPS):
    return x, np.full(len(x), float(value))


def test_runs_with_other_x_meet_on_one_grid_between_their_points():
    line = band([(np.array([0.0, 20.0]), np.array([0.0, 20.0])), (STEPS, STEPS)])
    np.testing.assert_allclose(line.middle, line.x)
    np.testing.assert_allclose(line.interval[0], line.interval[1])


def test_the_grid_is_what_all_runs_have_in_common():
    line = band([constant(1), constant(3, STEPS + 5), constant(2, np.array([-5.0, 17.0]))])
    assert (line.x[0], line.x[-1]) == (5, 17)
    assert line.runs == 3


def test_a_logarithmic_grid_has_equal_ratios():
    x = band([constant(1, np.array([1.0, 100.0]))], spacing=np.geomspace).x
    np.testing.assert_allclose(x[1:] / x[:-1], x[1] / x[0])


def test_one_run_is_its_own_middle_and_has_no_interval():
    line = band([(STEPS, STEPS**2)])
    assert line.middle[-1] == 400
    assert line.interval is None


def test_runs_of_a_single_point_make_a_single_point():
    assert band([constant(1, np.array([7.0])), constant(3, np.array([7.0]))]).middle.tolist() == [2]


def test_the_interquartile_mean_leaves_out_the_outer_quarters():
    values = np.array([0, 1, 2, 3, 4, 5, 6, 1000.0])[:, None]
    assert interquartile_mean(values) == 3.5 != mean(values)


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
def test_each_point_has_a_statistic_of_its_own(statistic):
    assert statistic(np.array([[1.0, 10.0], [3.0, 30.0]])).tolist() == [2, 20]


def test_the_interval_of_a_mean_is_the_classical_one_where_there_are_many_runs():
    values = np.random.default_rng(1).normal(5, 2, size=(400, 1))
    low, high = bootstrap_interval(values, mean)
    expected = stats.t.interval(0.95, 399, values.mean(), stats.sem(values[:, 0]))
    np.testing.assert_allclose([low[0], high[0]], expected, atol=0.02)


def test_whole_runs_are_drawn_so_that_a_run_above_another_stays_there():
    values = np.random.default_rng(1).normal(size=(10, 1)) + np.array([[0.0, 7.0]])
    low, high = bootstrap_interval(values, mean)
    np.testing.assert_allclose(low[1] - low[0], 7)
    np.testing.assert_allclose(high[1] - high[0], 7)


def test_the_same_runs_have_the_same_interval():
    values = np.random.default_rng(1).normal(size=(5, 3))
    one, other = bootstrap_interval(values, mean), bootstrap_interval(values, mean)
    np.testing.assert_array_equal(one, other)


BAD = [
    ([], "^there is no run"),
    ([(STEPS, STEPS[:2])], r"^y of run 1 must have the shape \(P=3\), got \(2,\)$"),
    ([constant(1), (STEPS[::-1], STEPS)], "^x of run 2 must grow"),
    ([constant(np.nan)], "^y of run 1 must be finite"),
    (
        [constant(1), constant(1, STEPS + 30)],
        "^the runs have no x in common: one begins at 30, where another has .* 20$",
    ),
]


@pytest.mark.parametrize(("runs", "sentence"), BAD)
def test_runs_that_do_not_fit_are_refused(runs, sentence):
    with pytest.raises(ValueError, match=sentence):
        band(runs)
