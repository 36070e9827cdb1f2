import re

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import CaptionSet, ImageFiles

PIXELS = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
CAPTIONS = ((("a", "dog"),), (("a", "cat"), ("one", "gray", "cat")))


def test_image_of_the_size_keeps_its_pixels(tmp_path):
    pixels = torch.randint(0, 256, (5, 5, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "image.png")
    assert torch.equal(ImageFiles([tmp_path / "image.png"], size=5)[0], pixels.permute(2, 0, 1))


def test_image_of_another_size_is_stretched_by_bicubic_resampling(tmp_path):
    image = Image.fromarray(torch.randint(0, 256, (9, 16, 3), dtype=torch.uint8).numpy())
    image.save(tmp_path / "image.png")
    expected = np.array(image.resize((6, 6), Image.Resampling.BICUBIC))
    found = ImageFiles([tmp_path / "image.png"], size=6)[0]
    assert found.shape == (3, 6, 6)
    assert torch.equal(found.permute(1, 2, 0), torch.from_numpy(expected))


def test_gray_and_transparent_images_become_rgb(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "gray.png")
    Image.new("RGBA", (4, 4)).save(tmp_path / "nothing.png")
    gray, nothing = ImageFiles([tmp_path / "gray.png", tmp_path / "nothing.png"], size=4)
    assert gray.unique().tolist() == [77]
    assert nothing.unique().tolist() == [255]


def test_image_files_are_a_sequence(tmp_path):
    for gray in (1, 2, 3):
        Image.new("L", (2, 2), gray).save(tmp_path / f"{gray}.png")
    images = ImageFiles([tmp_path / f"{gray}.png" for gray in (1, 2, 3)], size=2)
    assert len(images) == 3
    assert [int(image[0, 0, 0]) for image in images] == [1, 2, 3]
    assert int(images[-1][0, 0, 0]) == 3
    assert [int(image[0, 0, 0]) for image in images[1:]] == [2, 3]
    with pytest.raises(IndexError):
        images[3]


def test_missing_image_is_named_with_a_cure(tmp_path):
    path = tmp_path / "lost.jpg"
    with pytest.raises(FileNotFoundError, match=f"there is no file {re.escape(str(path))}; restore the image"):
        ImageFiles([path], size=4)[0]


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_image_is_named_with_a_cure(tmp_path, suffix, kept):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()).save(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} cannot be read as an image .*; move it elsewhere or"):
        ImageFiles([path], size=4)[0]


def test_size_without_pixels_is_refused():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        ImageFiles([], size=0)


@pytest.mark.parametrize(
    ("captions", "boxes", "message"),
    [
        (CAPTIONS[:1], None, "there are 2 images, but captions of 1"),
        ((CAPTIONS[0], ()), None, "image 1 has no caption"),
        ((CAPTIONS[0], (("a",), ())), None, "image 1 has an empty caption"),
        (CAPTIONS, ((((0, 0, 1, 1), None),),), "a box or None for each token"),
        (CAPTIONS, (((None, None),), ((None, None), (None, None))), "a box or None for each token"),
    ],
)
def test_captions_and_boxes_must_match_the_images(captions, boxes, message):
    with pytest.raises(ValueError, match=message):
        CaptionSet(PIXELS, captions, boxes)


def test_number_of_images_is_the_length():
    assert len(CaptionSet(PIXELS, CAPTIONS)) == 2
