import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot

from zoo.plotting import glimpse_paths, save_figure


def panels(figure, name):
    return [axes for axes in figure.axes if axes.get_label() == name]


def test_each_picture_has_its_path_what_was_seen_and_what_was_believed(looks):
    figure = glimpse_paths(**looks)
    for name in ("path", "seen", "beliefs"):
        assert len(panels(figure, name)) == 3
    assert panels(figure, "tiles") == []


def test_the_squares_of_each_picture_are_where_its_centres_say(looks):
    for axes, centres in zip(panels(glimpse_paths(**looks), "path"), looks["centres"], strict=True):
        for square, (row, column) in zip(axes.patches, centres, strict=True):
            box = square.get_bbox()
            assert (box.y0, box.y1, box.x0, box.x1) == (row - 4, row + 4, column - 4, column + 4)


def test_seen_pixels_show_as_they_are_and_others_do_not(looks):
    looks["images"] = np.ones((3, 1, 28, 28))
    looks["centres"] = np.full((3, 2, 2), 9.5)
    seen = panels(glimpse_paths(**looks), "seen")[0].images[0].get_array()
    white = (seen == 1).all(axis=-1)
    assert white[6:14, 6:14].all()
    assert white.sum() == 64


def test_what_the_sensor_passed_on_is_shown_if_given(looks):
    seen = np.random.default_rng(0).random((3, 2, 1, 1, 8, 8))
    tiles = panels(glimpse_paths(**looks, seen=seen), "tiles")
    assert len(tiles) == 3
    np.testing.assert_array_equal(tiles[2].images[1].get_array()[..., 0], seen[2, 1, 0, 0])


def test_pictures_in_colour_and_not_square_are_drawn_in_their_shape(looks, tmp_path):
    looks["images"] = np.random.default_rng(0).random((3, 3, 20, 40))
    figure = glimpse_paths(**looks)
    for axes in panels(figure, "path") + panels(figure, "seen"):
        assert axes.images[0].get_array().shape == (20, 40, 3)
        assert axes.bbox.height / axes.bbox.width == pytest.approx(0.5)
    save_figure(figure, tmp_path / "colour.png")


@pytest.mark.parametrize("n", [1, 2])
def test_one_picture_with_one_glimpse_is_enough(looks, tmp_path, n):
    few = {name: looks[name][:n] for name in ("images", "labels")}
    few |= {name: looks[name][:n, :1] for name in ("centres", "probabilities")}
    figure = glimpse_paths(**looks | few)
    assert len(panels(figure, "path")) == n
    save_figure(figure, tmp_path / "few.png")


def test_tensors_and_arrays_give_the_same_bytes_every_time_in_any_style(looks, tmp_path):
    tensors = {name: torch.as_tensor(looks[name]) for name in ("images", "centres", "probabilities", "labels")}
    save_figure(glimpse_paths(**looks), tmp_path / "arrays.png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "image.cmap": "jet"}):
        save_figure(glimpse_paths(**looks | tensors), tmp_path / "tensors.png")
    assert (tmp_path / "arrays.png").read_bytes() == (tmp_path / "tensors.png").read_bytes()


def test_the_arguments_stay_as_they_were_and_no_figure_lingers(looks):
    before = {name: np.copy(value) for name, value in looks.items()}
    settings = dict(matplotlib.rcParams)
    glimpse_paths(**looks)
    for name, value in before.items():
        np.testing.assert_array_equal(looks[name], value)
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == []


BAD = {
    "images": [
        np.zeros((3, 28, 28)),
        np.zeros((3, 2, 28, 28)),
        np.full((3, 1, 28, 28), 1.5),
        np.zeros((0, 1, 28, 28)),
    ],
    "centres": [np.zeros((3, 2, 3)), np.zeros((2, 2, 2)), np.zeros((3, 0, 2)), np.full((3, 2, 2), np.nan)],
    "sides": [(), (-8,)],
    "probabilities": [np.full((3, 3, 4), 0.1), np.full((3, 2, 4), -0.5), np.full((3, 2, 4), np.nan)],
    "labels": [np.array([0, 1]), np.array([0, 1, 4]), np.array([0.0, 1.0, 2.0])],
    "classes": [("zero", "one", "two")],
    "seen": [np.zeros((3, 2, 1, 1, 8, 7)), np.zeros((3, 2, 2, 1, 8, 8)), np.full((3, 2, 1, 1, 8, 8), 2.0)],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_bad_input_is_refused_in_one_sentence_that_names_it(looks, name, value):
    with pytest.raises(ValueError, match=rf"^{name} [^\n]*$"):
        glimpse_paths(**looks | {name: value})
