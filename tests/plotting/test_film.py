import numpy as np
import pytest
from PIL import Image

import zoo.plotting.film
from zoo.plotting.film import HOLD, LONGEST, Film, fitted


def pictures(count, size=8):
    """Each has another place for its black square, so that no two in a row are the same."""
    for number in range(count):
        picture = np.full((size, size, 3), 255, dtype=np.uint8)
        picture[number % size, number // size % size] = 0
        yield picture


def shot(fps, count, size=8):
    film = Film(fps)
    for picture in pictures(count, size):
        film.add(picture)
    return film


def saved(film, folder):
    film.save(folder / "film.gif")
    with Image.open(folder / "film.gif") as gif:
        for number in range(gif.n_frames):
            gif.seek(number)
            yield gif.info["duration"], np.asarray(gif.convert("RGB"))


def test_it_shows_each_picture_at_its_natural_speed_and_holds_the_last(tmp_path):
    durations, frames = zip(*saved(shot(fps=4, count=5), tmp_path), strict=True)
    assert durations == (250, 250, 250, 250, HOLD)
    for frame, picture in zip(frames, pictures(5), strict=True):
        np.testing.assert_array_equal(frame[12::25, 12::25], picture)


@pytest.mark.parametrize(("fps", "frames", "duration"), [(30, 100, 30), (50, 51, 40), (100, 26, 40)])
def test_a_fast_film_loses_pictures_but_not_its_speed(fps, frames, duration, tmp_path):
    durations, _ = zip(*saved(shot(fps, count=100), tmp_path), strict=True)
    assert len(durations) == frames
    assert set(durations[:-1]) == {duration}


def test_a_long_film_stays_short_and_ends_with_the_last_picture(tmp_path):
    film = shot(fps=10, count=5 * LONGEST, size=64)
    assert LONGEST / 2 < len(film.frames) <= LONGEST
    *_, (_, last) = saved(film, tmp_path)
    *_, picture = pictures(5 * LONGEST, size=64)
    np.testing.assert_array_equal(last[1::3, 1::3], picture)


def test_a_heavy_film_is_thinned_until_it_is_small(tmp_path, monkeypatch):
    film = shot(fps=10, count=60)
    film.save(tmp_path / "all.gif")
    whole = (tmp_path / "all.gif").stat().st_size
    monkeypatch.setattr(zoo.plotting.film, "LARGEST", whole // 2)
    thinned = list(saved(film, tmp_path))
    assert (tmp_path / "film.gif").stat().st_size <= whole // 2
    assert 10 < len(thinned) < 60


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (400, 600, (300, 200)),
        (10, 10, (200, 200)),
        (256, 256, (256, 256)),
        (500, 500, (250, 250)),
        (90, 70, (140, 180)),
    ],
)
def test_pictures_come_to_a_handy_size_by_a_whole_factor(height, width, size):
    assert fitted(np.zeros((height, width, 3), np.uint8)).size == size


def test_numbers_between_0_and_1_are_brightness():
    picture = np.array([[[0.0, 0.5, 1.0]]])
    assert fitted(picture).getpixel((0, 0)) == (0, 128, 255)


def test_bad_films_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^fps must be positive, got 0"):
        Film(fps=0)
    with pytest.raises(ValueError, match=r"^the film is empty"):
        Film(fps=10).save(tmp_path / "film.gif")
    with pytest.raises(ValueError, match=r"^path must end in \.gif"):
        shot(10, 2).save(tmp_path / "film.png")
    assert not list(tmp_path.iterdir())
