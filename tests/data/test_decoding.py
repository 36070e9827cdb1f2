import re

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.decoding import median_size, read_picture, read_stack


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("L", "L"), ("LA", "L"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGB")],
)
def test_a_picture_is_grey_or_in_colour(tmp_path, mode, expected):
    Image.new(mode, (5, 4)).save(tmp_path / "picture.png")
    assert read_picture(tmp_path / "picture.png").mode == expected


def test_colours_and_grey_levels_are_kept(tmp_path):
    Image.new("RGB", (5, 4), (10, 20, 30)).save(tmp_path / "colour.png")
    Image.new("L", (5, 4), 77).save(tmp_path / "grey.png")
    Image.new("LA", (5, 4), (77, 255)).save(tmp_path / "opaque.png")
    assert read_picture(tmp_path / "colour.png").getpixel((0, 0)) == (10, 20, 30)
    assert read_picture(tmp_path / "grey.png").getpixel((0, 0)) == 77
    assert read_picture(tmp_path / "opaque.png").getpixel((0, 0)) == 77


def test_a_palette_is_looked_up(tmp_path):
    Image.new("RGB", (5, 4), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png").getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_becomes_white(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "nothing.png")
    assert np.array(read_picture(tmp_path / "nothing.png")).min() == 255


def test_a_transparent_palette_colour_becomes_white(tmp_path):
    Image.new("P", (5, 4), 0).save(tmp_path / "nothing.png", transparency=0)
    assert read_picture(tmp_path / "nothing.png").getpixel((0, 0)) == (255, 255, 255)


def test_a_photograph_taken_sideways_is_turned_upright(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6  # turn by a quarter, clockwise
    Image.new("RGB", (8, 4)).save(tmp_path / "photo.jpg", exif=orientation)
    assert read_picture(tmp_path / "photo.jpg").size == (4, 8)


def truncated(path):
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_text("not a picture"), id="text"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(truncated, id="cut off"),
    ],
)
def test_an_unreadable_picture_is_named_with_the_cure(tmp_path, spoil):
    path = tmp_path / "picture.png"
    spoil(path)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} cannot be read .*remove it or replace it"):
        read_picture(path)


def test_sixteen_bits_are_refused_rather_than_clipped(tmp_path):
    Image.fromarray(np.full((4, 5), 300, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep.png has more than 256 levels of grey; save it with 8 bits"):
        read_picture(tmp_path / "deep.png")


def test_the_median_size_takes_height_and_width_apart():
    assert median_size([(30, 1), (20, 2), (10, 3)]) == (20, 2)


@pytest.fixture
def save(tmp_path):
    """Files of pictures."""

    def save(*pictures):
        paths = [tmp_path / f"{i}.png" for i in range(len(pictures))]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
        return paths

    return save


def test_stacking_keeps_pixels_where_nothing_is_to_change(save):
    pixels = torch.randint(0, 256, (4, 5, 3), dtype=torch.uint8)
    stacked = read_stack(save(Image.fromarray(pixels.numpy())), "RGB", size=(4, 5))
    assert torch.equal(stacked[0], pixels.permute(2, 0, 1))


def test_stacking_keeps_the_order_of_pictures(save):
    paths = save(*(Image.new("L", (3, 2), grey) for grey in (5, 9, 1)))
    assert read_stack(paths, "L", size=(2, 3))[:, 0, 0, 0].tolist() == [5, 9, 1]


def test_shrinking_averages(save):
    fine = Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255)
    small = read_stack(save(fine), "L", size=(4, 4)).float()
    assert (small - 127.5).abs().max() < 16
