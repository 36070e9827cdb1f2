import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from zoo.plotting import return_curves, save_figure
from zoo.plotting._bands import separate

STEPS = np.array([0.0, 50_000.0, 100_000.0])


def seeds(*ends):
    return [(STEPS, np.array([0.0, end / 2, end])) for end in ends]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_line_is_the_center_of_the_seeds_inside_its_band():
    (axes,) = return_curves({"a": seeds(90, 100, 110)}).axes
    (line,), (area,) = axes.lines, axes.collections
    assert line.get_xydata()[-1].tolist() == [100_000, 100]
    ends = [y for x, y in area.get_paths()[0].vertices if x == 100_000]
    assert 90 <= min(ends) < 100 < max(ends) <= 110


def test_each_line_is_labeled_with_name_and_number_of_seeds():
    (axes,) = return_curves({"a": seeds(90, 110), "b": seeds(10, 20, 30)}).axes
    assert texts(axes) == ["a\n2 seeds", "b\n3 seeds"]
    assert [text.get_color() for text in axes.texts] == [line.get_color() for line in axes.lines]
    assert axes.texts[0].xy[1] > axes.texts[1].xy[1]
    assert axes.get_legend() is None


def test_single_seed_has_no_band_and_a_note():
    (axes,) = return_curves({"a": seeds(90)}).axes
    assert not axes.collections
    assert texts(axes) == ["a\n1 seed: no band"]


def test_single_evaluation_is_a_point_with_error_bars():
    single = [(np.array([5_000.0]), np.array([value])) for value in (80.0, 100.0, 120.0)]
    figure = return_curves({"a": single})
    (axes,) = figure.axes
    assert [line.get_marker() for line in axes.lines if line.get_xydata().tolist() == [[5_000, 100]]] == ["o"]
    assert axes.get_xlim() == (0, 10_000)
    (bars,) = axes.collections  # the error bar
    assert 80 <= bars.get_segments()[0][0][1] < 100 < bars.get_segments()[0][1][1] <= 120


def test_title_contains_the_ylabel():
    assert "Eval return mean over training" in [
        text.get_text() for text in return_curves({"a": seeds(90)}, ylabel="eval return mean").texts
    ]


def test_reward_threshold_is_a_labeled_line():
    (axes,) = return_curves({"a": seeds(90, 110)}, reward_threshold=475).axes
    assert axes.lines[-1].get_ydata() == [475, 475]
    assert axes.get_ylim()[1] > 475
    assert "– – solved at 475" in texts(axes)
    assert not any("solved" in text for text in texts(return_curves({"a": seeds(90)}).axes[0]))


def test_x_axis_starts_at_0_with_plain_numbers(tmp_path):
    figure = return_curves({"a": [(STEPS + 10_000, STEPS)]})
    save_figure(figure, tmp_path / "returns.png")
    assert figure.axes[0].get_xlim() == (0, 110_000)
    assert "100,000" in [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_figure_is_reproducible(tmp_path):
    for name in ("one.png", "other.png"):
        save_figure(return_curves({"a": seeds(90, 100, 130)}, reward_threshold=100), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_long_name_stays_on_the_page():
    figure = return_curves({"policy gradient with a learned baseline": seeds(90, 110)})
    edge = figure.axes[0].texts[0].get_window_extent(FigureCanvasAgg(figure).get_renderer()).x1
    assert edge <= figure.bbox.x1


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0]),
        ([2.0, 2.0], [2.5, 2.0]),
        ([5.0, 5.0, 5.0], [5.0, 4.5, 4.0]),
        ([4.9, 0.0, 4.8], [5.0, 0.0, 4.5]),
    ],
)
def test_labels_keep_a_minimum_distance_and_their_order(heights, expected):
    assert separate(heights, distance=0.5, top=5.0) == expected


def test_invalid_runs_are_named():
    with pytest.raises(ValueError, match=r"^runs is empty"):
        return_curves({})
    with pytest.raises(ValueError, match=r"^b: x of run 1 must increase"):
        return_curves({"a": seeds(90), "b": [(STEPS[::-1], STEPS)]})
