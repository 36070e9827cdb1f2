import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data._image_files import read_image, read_images


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("1", "L"), ("L", "L"), ("LA", "L"), ("P", "RGB"), ("RGB", "RGB"), ("RGBA", "RGB")],
)
def test_image_is_gray_or_rgb(tmp_path, mode, expected):
    Image.new(mode, (5, 4)).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png").mode == expected


def test_colors_and_gray_levels_are_kept(tmp_path):
    Image.new("RGB", (5, 4), (10, 20, 30)).save(tmp_path / "color.png")
    Image.new("L", (5, 4), 77).save(tmp_path / "gray.png")
    Image.new("LA", (5, 4), (77, 255)).save(tmp_path / "opaque.png")
    assert read_image(tmp_path / "color.png").getpixel((0, 0)) == (10, 20, 30)
    assert read_image(tmp_path / "gray.png").getpixel((0, 0)) == 77
    assert read_image(tmp_path / "opaque.png").getpixel((0, 0)) == 77


def test_palette_is_applied(tmp_path):
    Image.new("RGB", (5, 4), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_become_white(tmp_path, mode):
    Image.new(mode, (5, 4)).save(tmp_path / "nothing.png")
    assert np.array(read_image(tmp_path / "nothing.png")).min() == 255


def test_transparent_palette_color_becomes_white(tmp_path):
    Image.new("P", (5, 4), 0).save(tmp_path / "nothing.png", transparency=0)
    assert read_image(tmp_path / "nothing.png").getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_applied(tmp_path):
    orientation = Image.Exif()
    orientation[0x0112] = 6  # turn by a quarter, clockwise
    Image.new("RGB", (8, 4)).save(tmp_path / "photo.jpg", exif=orientation)
    assert read_image(tmp_path / "photo.jpg").size == (4, 8)


def truncated(path):
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_text("not an image"), id="text"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(truncated, id="cut off"),
    ],
)
def test_unreadable_image_is_named_with_a_cure(tmp_path, spoil):
    path = tmp_path / "image.png"
    spoil(path)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} cannot be read .*move it elsewhere or replace it"):
        read_image(path)


def test_sixteen_bit_gray_raises_instead_of_clipping(tmp_path):
    Image.fromarray(np.full((4, 5), 300, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep.png has more than 256 gray levels; save it with 8 bits"):
        read_image(tmp_path / "deep.png")


RED = (200, 40, 30)
FORMATS = {
    "1": ("png", "tiff", "bmp"),
    "L": ("png", "jpg", "tiff", "bmp", "gif", "webp", "pgm"),
    "LA": ("png",),
    "P": ("png", "gif", "bmp", "tiff"),
    "PA": ("tiff",),
    "RGB": ("png", "jpg", "tiff", "bmp", "gif", "webp", "ppm", "tga", "jp2"),
    "RGBA": ("png", "tiff", "webp", "tga", "jp2"),
    "RGBX": ("tiff",),
    "CMYK": ("jpg", "tiff"),
    "YCbCr": ("jpg", "tiff"),
}


@pytest.mark.parametrize(
    ("mode", "suffix"), [(mode, suffix) for mode, suffixes in FORMATS.items() for suffix in suffixes]
)
def test_every_mode_of_every_format_keeps_its_colors(tmp_path, mode, suffix):
    image = Image.new("RGB", (16, 12), RED)
    image.paste((255, 255, 255), (8, 0, 16, 12))
    gray = mode in ("1", "L", "LA", "PA")
    stored = image.quantize(2) if mode == "P" else (image.convert("L") if gray else image).convert(mode)
    try:
        stored.save(tmp_path / f"image.{suffix}")
    except (OSError, ValueError) as error:
        pytest.skip(f"this Pillow writes no such file: {error}")
    found = np.array(read_image(tmp_path / f"image.{suffix}").convert("RGB")).astype(int)
    expected = np.array(image.convert("L").convert("RGB") if gray else image)
    tolerance = 12 if suffix in ("jpg", "jp2", "webp") or mode == "CMYK" else 8
    if mode != "1":  # which has two levels alone
        assert abs(found[2:-2, 2:5] - expected[2:-2, 2:5]).max() <= tolerance
    assert found[2:-2, 12:15].min() >= 255 - tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(tmp_path, orientation):
    corners = Image.new("L", (16, 8), 0)
    corners.paste(255, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what a camera does, which the tag is to undo
    stored = corners if orientation == 1 else corners.transpose(Image.Transpose(back[orientation]))
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    found = np.array(read_image(tmp_path / "photo.jpg"))
    assert found.shape == (8, 16)
    assert found[1:3, 1:7].min() > 220
    assert found[5:7].max() < 35
    assert found[:, 9:].max() < 35


def test_first_of_several_frames_is_read(tmp_path):
    frames = [Image.new("L", (5, 4), gray) for gray in (10, 200)]
    frames[0].save(tmp_path / "film.tiff", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "film.tiff").getpixel((0, 0)) == 10


def test_sixteen_bit_color_keeps_the_higher_eight_bits(tmp_path):
    # Pillow writes no such PNG, so the file is put together: signature, header, data, end.
    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = (2).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    row = b"\0" + bytes([200, 99, 40, 99, 30, 99]) * 2
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 2))
    (tmp_path / "deep.png").write_bytes(content + chunk(b"IEND", b""))
    assert read_image(tmp_path / "deep.png").getpixel((0, 0)) == RED


@pytest.fixture
def save(tmp_path):
    """Files of images."""

    def save(*images):
        paths = [tmp_path / f"{i}.png" for i in range(len(images))]
        for image, path in zip(images, paths, strict=True):
            image.save(path)
        return paths

    return save


def test_read_images_keeps_pixels_of_equal_size_and_mode(save):
    pixels = torch.randint(0, 256, (4, 5, 3), dtype=torch.uint8)
    stacked = read_images(save(Image.fromarray(pixels.numpy())), "RGB", size=(4, 5))
    assert torch.equal(stacked[0], pixels.permute(2, 0, 1))


def test_read_images_keeps_the_order(save):
    paths = save(*(Image.new("L", (3, 2), gray) for gray in (5, 9, 1)))
    assert read_images(paths, "L", size=(2, 3))[:, 0, 0, 0].tolist() == [5, 9, 1]


def test_downscaling_averages(save):
    fine = Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255)
    small = read_images(save(fine), "L", size=(4, 4)).float()
    assert (small - 127.5).abs().max() < 16
