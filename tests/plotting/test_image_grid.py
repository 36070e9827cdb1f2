import numpy as np
import pytest

from zoo.plotting import image_grid, save_figure


def shade(figure, index):
    return float(figure.axes[index].images[0].get_array()[0, 0, 0])


def test_images_are_below_their_heading():
    shades = np.linspace(0, 1, 20)[:, None, None, None] * np.ones((20, 1, 4, 4))
    figure = image_grid({"given": shades, "made": 1 - shades})
    assert [text.get_text() for text in figure.texts] == ["given", "made"]
    assert [axes.get_label() for axes in figure.axes] == ["given"] * 20 + ["made"] * 20
    assert [shade(figure, i) for i in (0, 19, 20, 39)] == [0, 1, 1, 0]


def test_columns_of_two_groups_are_aligned():
    images = np.zeros((18, 1, 4, 4))
    boxes = [axes.get_position() for axes in image_grid({"a": images, "b": images}).axes]
    assert boxes[3].x0 == boxes[21].x0
    assert boxes[3].y0 > boxes[17].y0 > boxes[21].y0
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)


def test_images_do_not_overlap():
    boxes = [
        axes.get_position() for axes in image_grid({"a": np.zeros((18, 1, 6, 4)), "b": np.ones((3, 1, 6, 4))}).axes
    ]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_figure_can_be_saved(tmp_path):
    save_figure(image_grid({"a": np.zeros((2, 3, 4, 4))}), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_values_out_of_range_are_named_by_heading():
    with pytest.raises(ValueError, match="samples must lie in"):
        image_grid({"samples": np.full((1, 1, 2, 2), 2.0)})


def test_images_of_another_size_are_named_by_heading():
    with pytest.raises(ValueError, match="made must have the shape"):
        image_grid({"given": np.zeros((1, 1, 2, 2)), "made": np.zeros((1, 1, 3, 2))})
