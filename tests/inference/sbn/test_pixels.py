import pytest
import torch

from zoo.inference.sbn.pixels import binary_pixels

SHAPE = (1, 2, 3)


def test_black_and_white_become_zero_and_one():
    images = torch.tensor([0, 255, 0, 0, 255, 255], dtype=torch.uint8).reshape(1, *SHAPE)
    assert binary_pixels(images, SHAPE).tolist() == [[0, 1, 0, 0, 1, 1]]


def test_floats_stay_what_they_are():
    images = torch.tensor([0, 1.0, 0, 0, 1, 1], dtype=torch.double).reshape(1, *SHAPE)
    assert torch.equal(binary_pixels(images, SHAPE), images.flatten(1))


@pytest.mark.parametrize("level", [0.5, 2.0, -1.0, float("nan"), float("inf")])
def test_anything_else_is_refused(level):
    with pytest.raises(ValueError, match="neither black nor white, or not a number; binarise the pictures first"):
        binary_pixels(torch.full((1, *SHAPE), level), SHAPE)


def test_so_are_grey_levels():
    with pytest.raises(ValueError, match="binarise"):
        binary_pixels(torch.full((1, *SHAPE), 1, dtype=torch.uint8), SHAPE)


@pytest.mark.parametrize("shape", [(0, 1, 2, 3), (5, 1, 3, 2), (5, 3, 2, 3)])
def test_so_are_pictures_of_another_shape_and_none(shape):
    with pytest.raises(ValueError, match=r"made for pictures of shape \(1, 2, 3\), got a batch of"):
        binary_pixels(torch.zeros(shape), SHAPE)
