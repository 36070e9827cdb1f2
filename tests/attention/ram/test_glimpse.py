import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zoo.attention import GlimpseSensor
from zoo.data._splits import border_median

exact = {"rtol": 0, "atol": 0}


def glimpse_of(sensor, images, locations):
    return sensor(sensor.patches(images), locations)


def reference_glimpse(image, location, size, scales, span, background):
    """One glimpse of one image, computed pixel by pixel: (scales, channels, size, size) as lists."""
    height, width = len(image[0]), len(image[0][0])
    center = [
        (extent - 1) / 2 + min(1, max(-1, where)) * far
        for extent, where, far in zip((height, width), location, span, strict=True)
    ]
    return [
        reference_patch(image, [nearest_pixel(c - (size * block - 1) / 2) for c in center], size, block, background)
        for block in (2**k for k in range(scales))
    ]


def reference_patch(image, corner, size, block, background):
    """Each pixel is the mean over a block of the image, minus the fill value."""
    patch = [[[0.0] * size for _ in range(size)] for _ in image]
    for channel, i, j, k, m in itertools.product(*map(range, (len(image), size, size, block, block))):
        row, column = corner[0] + i * block + k, corner[1] + j * block + m
        if 0 <= row < len(image[channel]) and 0 <= column < len(image[channel][0]):
            patch[channel][i][j] += (image[channel][row][column] - background[channel]) / block**2
    return patch


def nearest_pixel(x):
    assume(abs(x % 1 - 0.5) > 1e-4)  # ambiguous in single precision
    return math.floor(x + 0.5)


@st.composite
def sensors_and_locations(draw):
    """A sensor's options, images, and several locations for each."""
    channels, size, scales = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    height, width = draw(st.integers(size + 1, 14)), draw(st.integers(size + 1, 14))
    span = draw(st.none() | st.floats(0.25, 12))
    background = draw(st.lists(st.floats(0, 1, width=32), min_size=channels, max_size=channels))
    num_images, num_samples = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    coordinate = st.floats(-1.5, 1.5, width=32) | st.sampled_from([-1e9, -1.0, 0.0, 1.0, 1e9])
    locations = draw(st.lists(coordinate, min_size=num_samples * num_images * 2, max_size=num_samples * num_images * 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    images = torch.rand(num_images, channels, height, width, generator=generator)
    options = {"patch_size": size, "num_scales": scales, "location_range": span, "fill_value": background}
    return options, images, torch.tensor(locations).reshape(num_samples, num_images, 2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sensors_and_locations())
def test_glimpse_equals_a_pixel_by_pixel_reference_implementation(drawn):
    options, images, locations = drawn
    *_, height, width = images.shape
    span, size = options["location_range"], options["patch_size"]
    spans = ((height - size) / 2, (width - size) / 2) if span is None else (span, span)
    expected = [
        [
            reference_glimpse(image, where, size, options["num_scales"], spans, options["fill_value"])
            for image, where in zip(images.tolist(), wheres, strict=True)
        ]
        for wheres in locations.tolist()
    ]
    seen = glimpse_of(GlimpseSensor(tuple(images.shape[1:]), **options), images, locations)
    torch.testing.assert_close(seen, torch.tensor(expected), rtol=0, atol=1e-6)


def test_locations_without_a_sample_dimension_give_the_same_glimpses():
    sensor, images, locations = (
        GlimpseSensor((2, 9, 7), patch_size=3, num_scales=2),
        torch.rand(4, 2, 9, 7),
        torch.rand(4, 2),
    )
    seen = glimpse_of(sensor, images, locations)
    assert seen.shape == (4, 2, 2, 3, 3)
    assert sensor.num_features == seen[0].numel()
    torch.testing.assert_close(glimpse_of(sensor, images, locations[None])[0], seen, **exact)


class TestBorder:
    """An image of one gray level, padded with this level, has no edge."""

    locations = torch.tensor([[-1.0, -1.0], [1.0, 0.3], [0.0, 0.0], [9.0, -9.0]])

    @pytest.mark.parametrize("span", [None, 3.0, 20.0])
    def test_padding_with_the_image_value_adds_no_edge(self, span):
        shades = torch.tensor([0.2, 0.0, 0.7])
        images = shades.reshape(3, 1, 1).expand(4, 3, 11, 6)
        sensor = GlimpseSensor((3, 11, 6), patch_size=4, num_scales=4, location_range=span, fill_value=shades.tolist())
        assert glimpse_of(sensor, images, self.locations).eq(0).all()

    def test_padding_with_another_fill_value_adds_an_edge(self):
        images = torch.full((4, 1, 11, 6), 0.2)
        sensor = GlimpseSensor((1, 11, 6), patch_size=4, num_scales=4, fill_value=0.0)
        assert glimpse_of(sensor, images, self.locations).unique().numel() > 1

    def test_every_gray_level_of_a_file_can_be_the_fill_value(self):
        for level in range(256):
            images = torch.full((1, 1, 6, 6), level, dtype=torch.uint8)
            sensor = GlimpseSensor((1, 6, 6), patch_size=4, num_scales=2, fill_value=border_median(images))
            assert glimpse_of(sensor, images / 255, torch.ones(1, 2)).eq(0).all()

    def test_single_fill_value_applies_to_all_channels(self):
        sensor = GlimpseSensor((3, 6, 6), patch_size=4, num_scales=2, fill_value=0.5)
        assert glimpse_of(sensor, torch.full((1, 3, 6, 6), 0.5), torch.ones(1, 2)).eq(0).all()


class TestLocationRange:
    def test_by_default_the_finest_patch_reaches_exactly_to_the_border(self):
        image = torch.rand(1, 1, 9, 6)
        corners = {(-1.0, -1.0): image[0, 0, :4, :4], (1.0, 1.0): image[0, 0, 5:, 2:], (-1.0, 1.0): image[0, 0, :4, 2:]}
        sensor = GlimpseSensor((1, 9, 6), patch_size=4)
        for location, corner in corners.items():
            torch.testing.assert_close(glimpse_of(sensor, image, torch.tensor([location]))[0, 0, 0], corner, **exact)

    def test_unit_is_the_pixel_along_both_axes(self):
        sensor = GlimpseSensor((1, 9, 6), patch_size=4, location_range=2.5)
        assert sensor.pixel_coordinates(torch.tensor([[0.0, 0.0], [1.0, -1.0]])).tolist() == [[4.0, 2.5], [6.5, 0.0]]

    def test_location_beyond_one_is_clipped(self):
        sensor, images = GlimpseSensor((1, 9, 6), patch_size=4, num_scales=2), torch.rand(2, 1, 9, 6)
        near, far = torch.tensor([[1.0, -1.0], [-1.0, 0.5]]), torch.tensor([[1e6, -1.01], [-torch.inf, 0.5]])
        torch.testing.assert_close(glimpse_of(sensor, images, far), glimpse_of(sensor, images, near), **exact)
        torch.testing.assert_close(sensor.pixel_coordinates(far), sensor.pixel_coordinates(near), **exact)

    @pytest.mark.parametrize("size", [3, 4])
    def test_half_pixels_round_down_and_right_for_any_padding(self, size):
        image = torch.rand(1, 1, 9, 10)
        top, left = math.ceil((9 - size) / 2), math.ceil((10 - size) / 2)
        for span in range(1, 9):
            sensor = GlimpseSensor((1, 9, 10), patch_size=size, location_range=float(span))
            seen = glimpse_of(sensor, image, torch.zeros(1, 2))[0, 0, 0]
            torch.testing.assert_close(seen, image[0, 0, top : top + size, left : left + size], **exact)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32), st.integers(1, 4))
    def test_patch_is_centered_at_the_reported_pixel_coordinates(self, vertical, horizontal, size):
        """In an image of its own coordinates, the mean of a patch is its center."""
        rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(30.0), indexing="ij")
        sensor = GlimpseSensor((2, 40, 30), patch_size=size, num_scales=2, location_range=9.0)
        location = torch.tensor([[vertical, horizontal]])
        seen = glimpse_of(sensor, torch.stack([rows, columns])[None], location).mean((-1, -2))[0]
        assert (seen - sensor.pixel_coordinates(location)).abs().max() <= 0.501  # to the nearest pixel


def test_each_scale_covers_twice_the_side_of_the_one_before():
    assert GlimpseSensor((1, 28, 28), patch_size=5, num_scales=3).patch_sizes == (5, 10, 20)


def test_location_gets_no_gradient_through_the_pixels():
    location = torch.zeros(1, 2, requires_grad=True)
    sensor = GlimpseSensor((1, 9, 9), patch_size=3)
    assert not glimpse_of(sensor, torch.rand(1, 1, 9, 9), location).requires_grad


def test_nan_location_is_no_error_in_the_sensor():
    """The check of the loss finds it, and names the term."""
    sensor = GlimpseSensor((1, 9, 9), patch_size=3)
    assert glimpse_of(sensor, torch.rand(1, 1, 9, 9), torch.full((1, 2), math.nan)).shape == (1, 1, 1, 3, 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"patch_size": 0}, "must be at least 1, got patch_size=0"),
        ({"num_scales": 0}, "must be at least 1, got .*num_scales=0"),
        ({"patch_size": 6}, "covers a whole side of a 9×6 image; use a smaller patch_size, or set location_range"),
        ({"patch_size": 7}, "covers a whole side"),
        ({"location_range": 0.0}, "location_range must be a positive number of pixels, got 0"),
        ({"location_range": -2.0}, "location_range must be a positive"),
        ({"location_range": math.nan}, "location_range must be a positive"),
        ({"location_range": math.inf}, "location_range must be a positive"),
        ({"fill_value": (0.0, 0.0)}, "fill_value must have 1 or 3 elements, got 2"),
    ],
)
def test_invalid_option_raises(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        GlimpseSensor((3, 9, 6), **{"patch_size": 4, **options})


@pytest.mark.parametrize("shape", [(2, 1, 9, 6), (2, 3, 6, 9), (2, 3, 9, 7)])
def test_images_of_another_shape_raise(shape):
    with pytest.raises(
        ValueError, match=r"requires images of shape \(channels, height, width\) = \(3, 9, 6\), got .*2, "
    ):
        GlimpseSensor((3, 9, 6), patch_size=4).patches(torch.zeros(shape))


def test_patch_may_be_larger_than_the_image_if_location_range_is_set():
    image = torch.rand(1, 1, 3, 5)
    seen = glimpse_of(GlimpseSensor((1, 3, 5), patch_size=5, location_range=1.0), image, torch.zeros(1, 2))[0, 0, 0]
    torch.testing.assert_close(seen[1:4], image[0, 0], **exact)
    assert seen[[0, 4]].eq(0).all()
