from statistics import median_low

import pytest
import torch

from zoo.data import ImageData, ImageSet
from zoo.data.images import border_median

PICTURES = torch.arange(3 * 2 * 4 * 5, dtype=torch.uint8).reshape(3, 2, 4, 5)


def test_a_set_gives_the_pictures_and_labels_at_the_indices_asked_for():
    images, labels = ImageSet(PICTURES, torch.tensor([7, 8, 9]))[torch.tensor([2, 0, 2])]
    assert torch.equal(images, torch.stack([PICTURES[2], PICTURES[0], PICTURES[2]]))
    assert labels.tolist() == [9, 7, 9]


def test_a_set_is_as_long_as_its_labels():
    assert len(ImageSet(PICTURES, torch.tensor([7, 8, 9]))) == 3


def test_a_set_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        ImageSet(PICTURES, torch.tensor([7, 8, 9])).labels = torch.tensor([0, 0, 0])


def test_the_image_shape_is_channels_height_width():
    train = ImageSet(PICTURES, torch.tensor([0, 1, 0]))
    data = ImageData("x", train, None, lambda: train, ("a", "b"), (0.0, 0.0))
    assert data.image_shape == (2, 4, 5)


def test_the_border_median_is_taken_for_each_channel():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[:, 1], images[:, 2] = 51, 255
    assert border_median(images) == (0.0, 0.2, 1.0)


def test_the_border_median_looks_at_all_four_sides_and_at_nothing_inside():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (1, 1, 5, 6), dtype=torch.uint8, generator=generator)
        rows = images[0, 0].tolist()
        border = rows[0] + rows[-1] + [row[0] for row in rows[1:-1]] + [row[-1] for row in rows[1:-1]]
        assert border_median(images) == (median_low(border) / 255,)


def test_pictures_of_one_pixel_are_all_border():
    assert border_median(torch.full((3, 1, 1, 1), 102, dtype=torch.uint8)) == (0.4,)
