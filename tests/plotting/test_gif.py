import numpy as np
import pytest
from PIL import Image

import zoo.plotting._gif
from zoo.plotting._gif import LAST_FRAME_MS, MAX_FRAMES, GifWriter, resize_frame, share_palette


def images(count, size=8):
    """Images with a black pixel at varying positions."""
    for number in range(count):
        image = np.full((size, size, 3), 255, dtype=np.uint8)
        image[number % size, number // size % size] = 0
        yield image


def record(fps, count, size=8):
    writer = GifWriter(fps)
    for image in images(count, size):
        writer.add(image)
    return writer


def saved(writer, folder):
    writer.save(folder / "video.gif")
    with Image.open(folder / "video.gif") as gif:
        for number in range(gif.n_frames):
            gif.seek(number)
            yield gif.info["duration"], np.asarray(gif.convert("RGB"))


def test_frames_keep_their_duration_and_the_last_is_held(tmp_path):
    durations, frames = zip(*saved(record(fps=4, count=5), tmp_path), strict=True)
    assert durations == (250, 250, 250, 250, LAST_FRAME_MS)
    for frame, image in zip(frames, images(5), strict=True):
        np.testing.assert_array_equal(frame[12::25, 12::25], image)


@pytest.mark.parametrize(("fps", "frames", "duration"), [(30, 100, 30), (50, 51, 40), (100, 26, 40)])
def test_high_frame_rate_drops_frames_and_keeps_the_speed(fps, frames, duration, tmp_path):
    durations, _ = zip(*saved(record(fps, count=100), tmp_path), strict=True)
    assert len(durations) == frames
    assert set(durations[:-1]) == {duration}


def test_long_recording_is_thinned_and_keeps_the_last_frame(tmp_path):
    writer = record(fps=10, count=5 * MAX_FRAMES, size=64)
    assert MAX_FRAMES / 2 < len(writer.frames) <= MAX_FRAMES
    *_, (_, last) = saved(writer, tmp_path)
    *_, image = images(5 * MAX_FRAMES, size=64)
    np.testing.assert_array_equal(last[1::3, 1::3], image)


def test_large_file_is_thinned_to_max_bytes(tmp_path, monkeypatch):
    writer = record(fps=10, count=60)
    writer.save(tmp_path / "all.gif")
    whole = (tmp_path / "all.gif").stat().st_size
    monkeypatch.setattr(zoo.plotting._gif, "MAX_BYTES", whole // 2)
    thinned = list(saved(writer, tmp_path))
    assert (tmp_path / "video.gif").stat().st_size <= whole // 2
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
def test_frames_are_resized_by_a_whole_factor(height, width, size):
    assert resize_frame(np.zeros((height, width, 3), np.uint8)).size == size


def test_floats_between_0_and_1_are_converted_to_bytes():
    image = np.array([[[0.0, 0.5, 1.0]]])
    assert resize_frame(image).getpixel((0, 0)) == (0, 128, 255)


def test_invalid_writer_raises(tmp_path):
    with pytest.raises(ValueError, match=r"^fps must be positive, got 0"):
        GifWriter(fps=0)
    with pytest.raises(ValueError, match=r"^there are no frames"):
        GifWriter(fps=10).save(tmp_path / "video.gif")
    with pytest.raises(ValueError, match=r"^path must end in \.gif"):
        record(10, 2).save(tmp_path / "writer.png")
    assert not list(tmp_path.iterdir())


def test_frequent_colors_are_exact_and_rare_ones_close():
    rng = np.random.default_rng(0)
    areas = rng.integers(0, 256, (100, 1, 3)).repeat(100, axis=1)
    photograph = np.linspace(0, 255, 1500).reshape(15, 100, 1) + np.array([0.0, 0.4, 0.8])
    image = np.concatenate([areas, photograph]).clip(0, 255).astype(np.uint8)
    (reduced,) = (np.asarray(frame.convert("RGB")) for frame in share_palette([Image.fromarray(image)]))
    np.testing.assert_array_equal(reduced[:100], image[:100])
    assert np.abs(reduced.astype(int) - image).max() <= 40


def test_frames_share_one_palette():
    black, white = (Image.new("RGB", (4, 4), color) for color in ("black", "white"))
    first, second = share_palette([black, white])
    assert first.getpalette() == second.getpalette()
    assert np.asarray(second.convert("RGB")).min() == 255
