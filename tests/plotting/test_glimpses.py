import os

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image

from zoo.plotting import glimpse_summary, save_figure, save_glimpse_gif
from zoo.plotting._rasterization import rasterize
from zoo.plotting._summary_card import GlimpseData, draw_summary_cards
from zoo.plotting.glimpses import GIF_DPI


def panels(figure, name):
    return [axes for axes in figure.axes if axes.get_label() == name]


def test_each_image_has_its_three_panels(arguments):
    figure = glimpse_summary(**arguments)
    for name in ("fixations", "revealed", "class_probabilities"):
        assert len(panels(figure, name)) == 3


def test_squares_are_drawn_at_the_centers(arguments):
    for axes, centers in zip(panels(glimpse_summary(**arguments), "fixations"), arguments["centers"], strict=True):
        for square, (row, column) in zip(axes.patches, centers, strict=True):
            box = square.get_bbox()
            assert (box.y0, box.y1, box.x0, box.x1) == (row - 4, row + 4, column - 4, column + 4)


def test_only_covered_pixels_are_unchanged(arguments):
    arguments["images"] = np.ones((3, 1, 28, 28))
    arguments["centers"] = np.full((3, 2, 2), 9.5)
    seen = panels(glimpse_summary(**arguments), "revealed")[0].images[0].get_array()
    white = (seen == 1).all(axis=-1)
    assert white[6:14, 6:14].all()
    assert white.sum() == 64


def test_color_images_keep_their_aspect_ratio(arguments, tmp_path):
    arguments["images"] = np.random.default_rng(0).random((3, 3, 20, 40))
    figure = glimpse_summary(**arguments)
    for axes in panels(figure, "fixations") + panels(figure, "revealed"):
        assert axes.images[0].get_array().shape == (20, 40, 3)
        assert axes.bbox.height / axes.bbox.width == pytest.approx(0.5)
    save_figure(figure, tmp_path / "color.png")


@pytest.mark.parametrize("n", [1, 2])
def test_one_image_with_one_glimpse_is_enough(arguments, tmp_path, n):
    few = {name: arguments[name][:n] for name in ("images", "labels")}
    few |= {name: arguments[name][:n, :1] for name in ("centers", "probabilities")}
    figure = glimpse_summary(**arguments | few)
    assert len(panels(figure, "fixations")) == n
    save_figure(figure, tmp_path / "few.png")


def test_tensors_and_arrays_give_the_same_file_in_any_style(arguments, tmp_path):
    tensors = {name: torch.as_tensor(arguments[name]) for name in ("images", "centers", "probabilities", "labels")}
    save_figure(glimpse_summary(**arguments), tmp_path / "arrays.png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "image.cmap": "jet"}):
        save_figure(glimpse_summary(**arguments | tensors), tmp_path / "tensors.png")
    assert (tmp_path / "arrays.png").read_bytes() == (tmp_path / "tensors.png").read_bytes()


def test_arguments_and_global_state_are_unchanged(arguments):
    before = {name: np.copy(value) for name, value in arguments.items()}
    settings = dict(matplotlib.rcParams)
    glimpse_summary(**arguments)
    for name, value in before.items():
        np.testing.assert_array_equal(arguments[name], value)
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == []


BAD = {
    "images": [
        np.zeros((3, 28, 28)),
        np.zeros((3, 2, 28, 28)),
        np.full((3, 1, 28, 28), 1.5),
        np.zeros((0, 1, 28, 28)),
    ],
    "centers": [np.zeros((3, 2, 3)), np.zeros((2, 2, 2)), np.zeros((3, 0, 2)), np.full((3, 2, 2), np.nan)],
    "patch_sizes": [(), (-8,)],
    "probabilities": [np.full((3, 3, 4), 0.1), np.full((3, 2, 4), -0.5), np.full((3, 2, 4), np.nan)],
    "labels": [np.array([0, 1]), np.array([0, 1, 4]), np.array([0.0, 1.0, 2.0])],
    "classes": [("zero", "one", "two")],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_invalid_argument_is_named_in_one_line(arguments, name, value):
    with pytest.raises(ValueError, match=rf"^{name} [^\n]*$"):
        glimpse_summary(**arguments | {name: value})


def frames(path):
    with Image.open(path) as gif:
        for t in range(gif.n_frames):
            gif.seek(t)
            yield gif.info["duration"], np.asarray(gif.convert("RGB"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "glimpses.gif"


def test_gif_has_a_different_frame_of_equal_size_for_each_glimpse(arguments, path):
    three = np.concatenate([arguments["centers"], arguments["centers"][:, :1] + 1], axis=1)
    probabilities = np.full((3, 3, 4), 0.25)
    save_glimpse_gif(path, **arguments | {"centers": three, "probabilities": probabilities})
    images = [image for _, image in frames(path)]
    assert len(images) == 3
    assert len({image.shape for image in images}) == 1
    assert (images[0] != images[1]).any()
    assert (images[1] != images[2]).any()


def test_gif_frames_show_one_more_glimpse_each(arguments, path):
    save_glimpse_gif(path, **arguments)
    data = GlimpseData(**arguments)
    for shown, (_, image) in enumerate(frames(path), start=1):
        error = np.abs(image.astype(int) - np.asarray(rasterize(draw_summary_cards(data, shown), GIF_DPI)))
        assert error.mean() < 1
        assert (error > 64).mean() < 1e-3


def test_gif_loops_and_holds_its_last_frame(arguments, path):
    save_glimpse_gif(path, **arguments, frame_ms=300)
    assert [duration for duration, _ in frames(path)] == [300, 1200]
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0


def test_single_glimpse_gives_a_single_frame(arguments, path):
    once = {name: arguments[name][:, :1] for name in ("centers", "probabilities")}
    save_glimpse_gif(path, **arguments | once)
    assert len(list(frames(path))) == 1


def test_gif_is_small_and_its_background_white(arguments, path):
    save_glimpse_gif(path, **arguments)
    assert path.stat().st_size < 200_000
    for _, image in frames(path):
        assert (image[0] == 255).all()


def test_gif_is_reproducible(arguments, path):
    save_glimpse_gif(path, **arguments)
    first = path.read_bytes()
    save_glimpse_gif(str(path), **arguments)
    assert path.read_bytes() == first
    assert os.listdir(path.parent) == [path.name]


def test_invalid_argument_raises_before_the_gif_is_written(arguments, path):
    with pytest.raises(ValueError, match=r"^labels "):
        save_glimpse_gif(path, **arguments | {"labels": np.array([0, 1, 9])})
    with pytest.raises(ValueError, match=r"^frame_ms "):
        save_glimpse_gif(path, **arguments, frame_ms=0)
    with pytest.raises(ValueError, match=r"^path must end in \.gif"):
        save_glimpse_gif(path.with_suffix(".png"), **arguments)
    with pytest.raises(FileNotFoundError, match=r"^there is no folder"):
        save_glimpse_gif(path.parent / "nowhere" / "a.gif", **arguments)
    assert os.listdir(path.parent) == []
