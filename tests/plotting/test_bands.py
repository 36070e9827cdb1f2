import numpy as np
import pytest

from zoo.plotting._bands import make_band

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


def test_single_run_is_its_center_and_has_no_interval():
    line = make_band([(STEPS, STEPS**2)])
    assert line.center[-1] == 400
    assert line.interval is None


def test_band_of_runs_of_a_single_point_is_a_single_point():
    assert make_band([constant(1, np.array([7.0])), constant(3, np.array([7.0]))]).center.tolist() == [2]


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
