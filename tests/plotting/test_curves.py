import numpy as np
import pytest
import torch

from zoo.plotting import learning_curves, save_figure


def ticks(axis, figure, tmp_path):
    save_figure(figure, tmp_path / "curves.png")
    low, high = sorted(axis.get_view_interval())
    return [
        (place, label.get_text())
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if low <= place <= high
    ]


def test_each_series_is_a_named_line():
    series = {
        "a": (np.arange(3), np.array([0.3, 0.2, 0.1])),
        "b": (torch.arange(2), torch.tensor([0.5, 0.25])),
    }
    (axes,) = learning_curves(series, "epoch", "validation error").axes
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert axes.lines[0].get_xydata().tolist() == [[0, 0.3], [1, 0.2], [2, 0.1]]
    assert axes.lines[1].get_xydata().tolist() == [[0, 0.5], [1, 0.25]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "validation error")


def test_many_lines_differ_in_color_and_line_style():
    series = {str(i): (np.arange(2), np.arange(2) + i) for i in range(20)}
    (axes,) = learning_curves(series, "x", "y").axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 20
    for before, after in zip(axes.lines, axes.lines[1:], strict=False):
        assert before.get_color() != after.get_color()
        assert before.get_linestyle() != after.get_linestyle()


def test_epoch_ticks_are_integers(tmp_path):
    figure = learning_curves({"a": (np.array([1, 2]), np.array([0.3, 0.2]))}, "epoch", "error")
    assert all(place == round(place) for place, _ in ticks(figure.axes[0].xaxis, figure, tmp_path))


def test_short_axis_has_fractional_ticks(tmp_path):
    figure = learning_curves({"a": (np.array([1, 1.5]), np.array([0.3, 0.2]))}, "hours", "error")
    assert any(place != round(place) for place, _ in ticks(figure.axes[0].xaxis, figure, tmp_path))


@pytest.mark.parametrize("low", [1e-4, 0.02, 0.19])
def test_logarithmic_axis_has_plain_tick_labels(tmp_path, low):
    figure = learning_curves({"a": (np.arange(2), np.array([0.2, low]))}, "epoch", "error", log=True)
    labelled = ticks(figure.axes[0].yaxis, figure, tmp_path)
    assert figure.axes[0].get_yscale() == "log"
    assert len(labelled) >= 2
    assert all(float(text) == pytest.approx(place) for place, text in labelled)


ONE = np.array([1.0])
BAD = [
    ({}, "^series is empty"),
    ({"a": (np.arange(3), np.arange(2))}, r"^y of 'a' must have the shape \(P=3\), got \(2,\)$"),
    ({"a": (np.zeros((1, 1)), ONE)}, "^x of 'a' must have the shape"),
    ({"a": (ONE, ONE), "b": (ONE, np.array([np.nan]))}, "^y of 'b' must be finite"),
    ({"a": (np.array([]), np.array([]))}, "^x of 'a' is empty"),
    ({"a": (ONE, np.array([0.0]))}, "^y of 'a' must be positive on a logarithmic axis, but reaches 0$"),
]


@pytest.mark.parametrize(("series", "sentence"), BAD)
def test_invalid_series_is_named(series, sentence):
    with pytest.raises(ValueError, match=sentence):
        learning_curves(series, "epoch", "error", log=True)


def test_zero_is_valid_on_a_linear_axis():
    assert learning_curves({"a": (ONE, np.array([0.0]))}, "epoch", "error").axes


def test_single_point_is_drawn_as_a_marker():
    (axes,) = learning_curves({"a": (np.array([1]), np.array([0.3]))}, "epoch", "error").axes
    assert axes.lines[0].get_marker() == "o"
