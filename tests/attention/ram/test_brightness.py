import math

import pytest
import torch

from zoo.attention.ram.brightness import checked_brightness


def test_bytes_become_fractions():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert checked_brightness(images).flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_fractions_stay_as_they_are():
    images = torch.tensor([0.0, 0.2, 1.0]).reshape(1, 1, 1, 3)
    assert checked_brightness(images) is images


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (0, 1, 28, 28), (1, 1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_batch_that_is_empty_or_of_another_shape_is_an_error(shape, dtype):
    with pytest.raises(
        ValueError, match=r"^pictures must have shape \(images, channels, height, width\), at least one"
    ):
        checked_brightness(torch.zeros(shape, dtype=dtype))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error(value):
    images = torch.zeros(2, 1, 4, 4)
    images[1, 0, 2, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        checked_brightness(images)


@pytest.mark.parametrize(
    ("value", "said"), [(-0.5, "from -0.5 to 0"), (1.5, "from 0 to 1.5"), (255.0, "from 0 to 255")]
)
def test_a_fraction_outside_of_zero_to_one_is_an_error(value, said):
    images = torch.zeros(2, 1, 4, 4)
    images[1, 0, 2, 3] = value
    with pytest.raises(ValueError, match=rf"must lie in \[0, 1\], got values {said}"):
        checked_brightness(images)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_other_kinds_of_numbers_are_an_error(dtype):
    with pytest.raises(ValueError, match="must be uint8, or floats"):
        checked_brightness(torch.zeros(1, 1, 4, 4, dtype=dtype))
