import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from zoo.plotting import save_figure
from zoo.plotting.returns import return_curves, spread

STEPS = np.array([0.0, 50_000.0, 100_000.0])


def seeds(*ends):
    return [(STEPS, np.array([0.0, end / 2, end])) for end in ends]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_line_is_the_middle_of_its_seeds_and_the_band_encloses_it():
    (axes,) = return_curves({"a": seeds(90, 100, 110)}).axes
    (line,), (area,) = axes.lines, axes.collections
    assert line.get_xydata()[-1].tolist() == [100_000, 100]
    ends = [y for x, y in area.get_paths()[0].vertices if x == 100_000]
    assert 90 <= min(ends) < 100 < max(ends) <= 110


def test_each_line_is_named_at_its_end_with_the_number_of_its_seeds():
    (axes,) = return_curves({"a": seeds(90, 110), "b": seeds(10, 20, 30)}).axes
    assert texts(axes) == ["a\n2 seeds", "b\n3 seeds"]
    assert [text.get_color() for text in axes.texts] == [line.get_color() for line in axes.lines]
    assert axes.texts[0].xy[1] > axes.texts[1].xy[1]
    assert axes.get_legend() is None


def test_one_seed_has_no_band_and_says_so():
    (axes,) = return_curves({"a": seeds(90)}).axes
    assert not axes.collections
    assert texts(axes) == ["a\n1 seed: no band"]


def test_a_single_evaluation_is_drawn_as_a_point_with_its_interval():
    single = [(np.array([5_000.0]), np.array([value])) for value in (80.0, 100.0, 120.0)]
    figure = return_curves({"a": single})
    (axes,) = figure.axes
    assert [line.get_marker() for line in axes.lines if line.get_xydata().tolist() == [[5_000, 100]]] == ["o"]
    assert axes.get_xlim() == (0, 10_000)
    (bars,) = axes.collections  # the error bar
    assert 80 <= bars.get_segments()[0][0][1] < 100 < bars.get_segments()[0][1][1] <= 120


def test_title_names_what_is_drawn():
    assert "Eval return mean over training" in [
        text.get_text() for text in return_curves({"a": seeds(90)}, ylabel="eval return mean").texts
    ]


def test_where_the_task_is_solved_there_is_a_line_that_says_so():
    (axes,) = return_curves({"a": seeds(90, 110)}, reward_threshold=475).axes
    assert axes.lines[-1].get_ydata() == [475, 475]
    assert axes.get_ylim()[1] > 475
    assert "– – solved at 475" in texts(axes)
    assert not any("solved" in text for text in texts(return_curves({"a": seeds(90)}).axes[0]))


def test_steps_are_counted_from_0_in_plain_numbers(tmp_path):
    figure = return_curves({"a": [(STEPS + 10_000, STEPS)]})
    save_figure(figure, tmp_path / "returns.png")
    assert figure.axes[0].get_xlim() == (0, 110_000)
    assert "100,000" in [label.get_text() for label in figure.axes[0].get_xticklabels()]


def test_the_picture_is_the_same_each_time(tmp_path):
    for name in ("one.png", "other.png"):
        save_figure(return_curves({"a": seeds(90, 100, 130)}, reward_threshold=100), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_a_long_name_stays_on_the_page():
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
def test_labels_keep_their_distance_and_their_order(heights, expected):
    assert spread(heights, distance=0.5, top=5.0) == expected


def test_bad_runs_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^runs is empty"):
        return_curves({})
    with pytest.raises(ValueError, match=r"^b: x of run 1 must grow"):
        return_curves({"a": seeds(90), "b": [(STEPS[::-1], STEPS)]})
