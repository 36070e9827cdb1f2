import os

import numpy as np
import pytest
from PIL import Image

from zoo.plotting import save_glimpse_gif
from zoo.plotting.animation import in_one_palette, pixels
from zoo.plotting.cards import draw_episodes
from zoo.plotting.episodes import checked_episodes


def frames(path):
    with Image.open(path) as gif:
        for t in range(gif.n_frames):
            gif.seek(t)
            yield gif.info["duration"], np.asarray(gif.convert("RGB"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "glimpses.gif"


def test_there_is_a_frame_for_each_glimpse_all_of_one_size_and_all_different(looks, path):
    three = np.concatenate([looks["centres"], looks["centres"][:, :1] + 1], axis=1)
    beliefs = np.full((3, 3, 4), 0.25)
    save_glimpse_gif(path, **looks | {"centres": three, "probabilities": beliefs})
    pictures = [picture for _, picture in frames(path)]
    assert len(pictures) == 3
    assert len({picture.shape for picture in pictures}) == 1
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[1] != pictures[2]).any()


def test_the_first_frame_has_one_glimpse_and_the_last_has_all(looks, path):
    save_glimpse_gif(path, **looks)
    episodes = checked_episodes(**looks)
    for shown, (_, picture) in enumerate(frames(path), start=1):
        error = np.abs(picture.astype(int) - np.asarray(pixels(draw_episodes(episodes, shown))))
        assert error.mean() < 1
        assert (error > 64).mean() < 1e-3


def test_it_loops_and_holds_its_last_frame_longer(looks, path):
    save_glimpse_gif(path, **looks, frame_ms=300)
    assert [duration for duration, _ in frames(path)] == [300, 1200]
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0


def test_one_glimpse_makes_one_frame(looks, path):
    once = {name: looks[name][:, :1] for name in ("centres", "probabilities")}
    save_glimpse_gif(path, **looks | once)
    assert len(list(frames(path))) == 1


def test_it_is_small_and_its_page_is_white(looks, path):
    save_glimpse_gif(path, **looks)
    assert path.stat().st_size < 200_000
    for _, picture in frames(path):
        assert (picture[0] == 255).all()


def test_the_same_looks_give_the_same_bytes(looks, path):
    save_glimpse_gif(path, **looks)
    first = path.read_bytes()
    save_glimpse_gif(str(path), **looks)
    assert path.read_bytes() == first
    assert os.listdir(path.parent) == [path.name]


def test_frequent_colours_survive_the_palette_and_rare_ones_stay_close():
    rng = np.random.default_rng(0)
    areas = rng.integers(0, 256, (100, 1, 3)).repeat(100, axis=1)
    photograph = np.linspace(0, 255, 1500).reshape(15, 100, 1) + np.array([0.0, 0.4, 0.8])
    picture = np.concatenate([areas, photograph]).clip(0, 255).astype(np.uint8)
    (reduced,) = (np.asarray(frame.convert("RGB")) for frame in in_one_palette([Image.fromarray(picture)]))
    np.testing.assert_array_equal(reduced[:100], picture[:100])
    assert np.abs(reduced.astype(int) - picture).max() <= 40


def test_frames_share_one_palette():
    black, white = (Image.new("RGB", (4, 4), colour) for colour in ("black", "white"))
    first, second = in_one_palette([black, white])
    assert first.getpalette() == second.getpalette()
    assert np.asarray(second.convert("RGB")).min() == 255


def test_bad_input_is_refused_before_anything_is_written(looks, path):
    with pytest.raises(ValueError, match=r"^labels "):
        save_glimpse_gif(path, **looks | {"labels": np.array([0, 1, 9])})
    with pytest.raises(ValueError, match=r"^frame_ms "):
        save_glimpse_gif(path, **looks, frame_ms=0)
    with pytest.raises(ValueError, match=r"^path must end in \.gif"):
        save_glimpse_gif(path.with_suffix(".png"), **looks)
    with pytest.raises(FileNotFoundError, match=r"^There is no folder"):
        save_glimpse_gif(path.parent / "nowhere" / "a.gif", **looks)
    assert os.listdir(path.parent) == []
