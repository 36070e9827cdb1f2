import numpy as np

from examples.exploration import regret_curves

EPISODES = np.array([100.0, 200.0])


def seed(regret, gap):
    return EPISODES, np.array([regret / 2, regret]), np.array([0.5, gap])


def test_regret_and_gap_have_separate_axes_and_equal_colors():
    runs = {"greedy": [seed(60, 0.2), seed(80, 0.4)], "uniform": [seed(100, 0.5)]}
    regret, gap = regret_curves(runs).axes
    assert [line.get_ydata()[-1] for line in regret.lines] == [70, 100]
    np.testing.assert_allclose([line.get_ydata()[-1] for line in gap.lines], [0.3, 0.5])
    assert [line.get_color() for line in regret.lines] == [line.get_color() for line in gap.lines]
    assert [text.get_text() for text in gap.texts] == ["greedy\n2 seeds", "uniform\n1 seed: no band"]
    assert regret.get_ylim()[0] == gap.get_ylim()[0] == 0


def test_regret_is_the_mean_over_all_seeds():
    strange = [seed(regret, 0.1) for regret in (10, 10, 10, 10, 10, 10, 10, 1000)]
    assert regret_curves({"a": strange}).axes[0].lines[0].get_ydata()[-1] == 133.75
