import numpy as np
import pytest

from zoo.plotting import picture_sheet, save_figure


def shade(figure, index):
    return float(figure.axes[index].images[0].get_array()[0, 0, 0])


def test_every_picture_is_shown_below_its_heading():
    shades = np.linspace(0, 1, 20)[:, None, None, None] * np.ones((20, 1, 4, 4))
    figure = picture_sheet({"given": shades, "made": 1 - shades})
    assert [text.get_text() for text in figure.texts] == ["given", "made"]
    assert [axes.get_label() for axes in figure.axes] == ["given"] * 20 + ["made"] * 20
    assert [shade(figure, i) for i in (0, 19, 20, 39)] == [0, 1, 1, 0]


def test_pictures_of_two_groups_stand_above_each_other():
    pictures = np.zeros((18, 1, 4, 4))
    boxes = [axes.get_position() for axes in picture_sheet({"a": pictures, "b": pictures}).axes]
    assert boxes[3].x0 == boxes[21].x0
    assert boxes[3].y0 > boxes[17].y0 > boxes[21].y0
    assert all(0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)


def test_no_two_of_them_overlap():
    boxes = [
        axes.get_position() for axes in picture_sheet({"a": np.zeros((18, 1, 6, 4)), "b": np.ones((3, 1, 6, 4))}).axes
    ]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


def test_it_can_be_saved(tmp_path):
    save_figure(picture_sheet({"a": np.zeros((2, 3, 4, 4))}), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_values_outside_of_the_range_are_named_by_their_heading():
    with pytest.raises(ValueError, match="dreams must lie in"):
        picture_sheet({"dreams": np.full((1, 1, 2, 2), 2.0)})


def test_so_are_pictures_of_another_size():
    with pytest.raises(ValueError, match="made must have the shape"):
        picture_sheet({"given": np.zeros((1, 1, 2, 2)), "made": np.zeros((1, 1, 3, 2))})
