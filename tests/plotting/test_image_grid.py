import numpy as np
import pytest

from zoo.plotting import image_grid, save_figure
from zoo.plotting.image_grid import COLUMNS


def grid(figure, index):
    """Pixels of a group, and the width of its columns."""
    pixels = np.asarray(figure.axes[index].images[0].get_array())
    return pixels, pixels.shape[1] // COLUMNS


def test_images_are_below_their_heading():
    shades = np.linspace(0, 1, 20)[:, None, None, None] * np.ones((20, 1, 4, 4))
    figure = image_grid({"given": shades, "made": 1 - shades})
    assert [text.get_text() for text in figure.texts] == ["given", "made"]
    assert [axes.get_label() for axes in figure.axes] == ["given", "made"]
    for text, axes in zip(figure.texts, figure.axes, strict=True):
        assert text.get_position()[1] > axes.get_position().y1
    assert figure.axes[0].get_position().y0 > figure.texts[1].get_position()[1]


def test_images_are_in_rows_of_sixteen_without_overlap():
    images = np.random.default_rng(0).random((18, 1, 6, 4))
    pixels, width = grid(image_grid({"a": images}), 0)
    height = len(pixels) // 2
    assert (height, width) > (6, 4)
    found = pixels.reshape(2, height, COLUMNS, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    np.testing.assert_array_equal(found[:18, :6, :4, 0], images[:, 0])
    assert (found[:, 6:] == 1).all()
    assert (found[:, :, 4:] == 1).all()
    assert (found[18:] == 1).all()


def test_columns_of_two_groups_are_aligned():
    figure = image_grid({"a": np.zeros((18, 1, 4, 4)), "b": np.zeros((3, 1, 4, 4))})
    first, second = (axes.get_position() for axes in figure.axes)
    assert (first.x0, first.x1) == (second.x0, second.x1)
    assert grid(figure, 0)[1] == grid(figure, 1)[1]
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in (first, second))


def test_images_keep_their_aspect_ratio():
    (axes,) = image_grid({"a": np.zeros((18, 3, 6, 4))}).axes
    height, width, _ = axes.images[0].get_array().shape
    assert axes.bbox.height / axes.bbox.width == pytest.approx(height / width)


def test_figure_can_be_saved(tmp_path):
    save_figure(image_grid({"a": np.zeros((2, 3, 4, 4))}), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_values_out_of_range_are_named_by_heading():
    with pytest.raises(ValueError, match="samples must lie in"):
        image_grid({"samples": np.full((1, 1, 2, 2), 2.0)})


def test_images_of_another_size_are_named_by_heading():
    with pytest.raises(ValueError, match="made must have the shape"):
        image_grid({"given": np.zeros((1, 1, 2, 2)), "made": np.zeros((1, 1, 3, 2))})
