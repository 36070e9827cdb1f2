import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from zoo.plotting._panels import (
    PROBABILITY_CMAP,
    draw_class_probabilities,
    draw_fixations,
    draw_revealed,
    glimpse_colors,
    square,
)


@pytest.fixture
def axes():
    return Figure().add_axes((0.1, 0.1, 0.8, 0.8))


def luminance(color):
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def squares(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize("side", [7, 8])
def test_square_is_centered(side):
    box = square(np.array([10.25, 20.0]), side).get_bbox()
    assert (box.y0, box.y1) == (10.25 - side / 2, 10.25 + side / 2)
    assert (box.x0, box.x1) == (20.0 - side / 2, 20.0 + side / 2)


def test_pixel_centers_of_the_image_are_integers(axes):
    draw_fixations(axes, np.zeros((20, 30, 3)), np.array([[3.0, 4.0]]), (8.0,), steps=1)
    assert axes.get_xlim() == (-0.5, 29.5)
    assert axes.get_ylim() == (19.5, -0.5)
    assert tuple(axes.images[0].get_extent()) == (-0.5, 29.5, 19.5, -0.5)


def test_finest_square_of_each_glimpse_and_all_of_the_last_are_drawn(axes):
    centers = np.array([[3.0, 4.0], [10.0, 12.0]])
    draw_fixations(axes, np.zeros((20, 30, 3)), centers, (8.0, 16.0), steps=3)
    drawn = [(patch.get_y(), patch.get_x(), patch.get_width(), patch.get_height()) for patch in squares(axes)]
    assert drawn == [(-1, 0, 8, 8), (6, 8, 8, 8), (2, 4, 16, 16)]


def test_only_the_finest_squares_extend_beyond_the_image(axes):
    draw_fixations(axes, np.zeros((20, 30, 3)), np.array([[0.0, 0.0]]), (8.0, 16.0), steps=1)
    assert [patch.get_clip_on() for patch in squares(axes)] == [False, True]


def test_lines_connect_consecutive_glimpses(axes):
    centers = np.array([[3.0, 4.0], [10.0, 12.0], [5.0, 6.0]])
    draw_fixations(axes, np.zeros((20, 30, 3)), centers, (8.0,), steps=3)
    lines = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "None"]
    assert lines == [[[4, 3], [12, 10]], [[12, 10], [6, 5]]]


def test_glimpses_are_numbered_and_only_the_first_is_hollow(axes):
    centers = np.array([[3.0, 4.0], [10.0, 12.0], [5.0, 6.0]])
    draw_fixations(axes, np.zeros((20, 30, 3)), centers, (8.0,), steps=3)
    assert [(text.get_text(), *text.get_position()) for text in axes.texts] == [
        ("1", 4, 3),
        ("2", 12, 10),
        ("3", 6, 5),
    ]
    markers = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert markers == ["white", *glimpse_colors(3)[1:]]


def test_color_of_a_glimpse_does_not_depend_on_later_ones(axes):
    draw_fixations(axes, np.zeros((20, 30, 3)), np.array([[3.0, 4.0], [10.0, 12.0]]), (8.0,), steps=5)
    drawn = [patch.get_edgecolor() for patch in squares(axes)]
    assert drawn == [(*to_rgb(color), 1) for color in glimpse_colors(5)[:2]]
    assert [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"][1] == glimpse_colors(5)[1]


def test_glimpse_colors_brighten_and_contrast_with_black():
    brightness = [luminance(color) for color in glimpse_colors(8)]
    assert brightness == sorted(brightness)
    assert (brightness[0] + 0.05) / 0.05 > 3  # contrast to black, as web accessibility counts it


def test_colormap_darkens_with_probability():
    brightness = [luminance(PROBABILITY_CMAP(probability)) for probability in np.linspace(0, 1, 20)]
    assert brightness == sorted(brightness, reverse=True)


def test_covered_pixels_are_unchanged_and_others_are_grayish(axes):
    image = np.random.default_rng(0).integers(0, 2, (4, 5, 1)).repeat(3, axis=2).astype(float)
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 2:] = True
    draw_revealed(axes, image, mask)
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown[mask], image[mask])
    assert 0.15 < shown[~mask].min() < shown[~mask].max() < 0.85


def test_class_probabilities_have_a_column_per_glimpse_and_a_row_per_class(axes):
    probabilities = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    draw_class_probabilities(axes, probabilities, steps=4, label=1, classes=("a", "b", "c"))
    np.testing.assert_array_equal(axes.collections[0].get_array(), probabilities.T)
    assert axes.collections[0].get_clim() == (0, 1)
    assert axes.get_xlim() == (0, 4)
    assert axes.get_ylim() == (3, 0)


def test_columns_of_class_probabilities_are_numbered_below(axes):
    draw_class_probabilities(axes, np.full((2, 3), 0.3), steps=4, label=1, classes=("a", "b", "c"))
    first, second = (text for text in axes.texts if text.get_text() in "12")
    assert (first.get_text(), second.get_text()) == ("1", "2")
    for text, column in ((first, 0.5), (second, 1.5)):
        x, y = text.get_transform().transform(text.get_position())
        left, bottom = axes.transData.transform((column, 3))
        assert x == pytest.approx(left)
        assert y < bottom


def test_most_probable_and_true_class_are_marked(axes):
    probabilities = np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    draw_class_probabilities(axes, probabilities, steps=4, label=0, classes=("a", "b", "c"))
    assert axes.lines[0].get_xydata().tolist() == [[0.5, 1.5], [1.5, 2.5]]
    (pointer,) = (text for text in axes.texts if text.get_text() == "◂")
    assert pointer.xy == (1, 0.5)
    assert [label.get_fontweight() for label in axes.get_yticklabels()] == ["bold", "normal", "normal"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
