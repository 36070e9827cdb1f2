import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zoo.attention import GlimpseSensor
from zoo.data.images import border_median

exact = {"rtol": 0, "atol": 0}


def look(sensor, images, locations):
    return sensor(sensor.windows(images), locations)


def slow_look(image, location, size, scales, span, background):
    """One glimpse at one picture, written down pixel by pixel: (scales, channels, size, size) as lists."""
    height, width = len(image[0]), len(image[0][0])
    centre = [
        (extent - 1) / 2 + min(1, max(-1, where)) * far
        for extent, where, far in zip((height, width), location, span, strict=True)
    ]
    return [
        slow_patch(image, [nearest_pixel(c - (size * block - 1) / 2) for c in centre], size, block, background)
        for block in (2**k for k in range(scales))
    ]


def slow_patch(image, corner, size, block, background):
    """Each pixel is the mean over a block of the picture, counted from the background."""
    patch = [[[0.0] * size for _ in range(size)] for _ in image]
    for channel, i, j, k, m in itertools.product(*map(range, (len(image), size, size, block, block))):
        row, column = corner[0] + i * block + k, corner[1] + j * block + m
        if 0 <= row < len(image[channel]) and 0 <= column < len(image[channel][0]):
            patch[channel][i][j] += (image[channel][row][column] - background[channel]) / block**2
    return patch


def nearest_pixel(x):
    assume(abs(x % 1 - 0.5) > 1e-4)  # too near to half a pixel to be told apart in single precision
    return math.floor(x + 0.5)


@st.composite
def looks(draw):
    """A sensor's options, pictures, and locations of several rollouts."""
    channels, size, scales = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    height, width = draw(st.integers(size + 1, 14)), draw(st.integers(size + 1, 14))
    span = draw(st.none() | st.floats(0.25, 12))
    background = draw(st.lists(st.floats(0, 1, width=32), min_size=channels, max_size=channels))
    images, rollouts = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    coordinate = st.floats(-1.5, 1.5, width=32) | st.sampled_from([-1e9, -1.0, 0.0, 1.0, 1e9])
    locations = draw(st.lists(coordinate, min_size=rollouts * images * 2, max_size=rollouts * images * 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    pictures = torch.rand(images, channels, height, width, generator=generator)
    options = {"size": size, "scales": scales, "span": span, "background": background}
    return options, pictures, torch.tensor(locations).reshape(rollouts, images, 2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(looks())
def test_a_glimpse_is_what_a_slow_look_pixel_by_pixel_sees(given_looks):
    options, pictures, locations = given_looks
    *_, height, width = pictures.shape
    span, size = options["span"], options["size"]
    spans = ((height - size) / 2, (width - size) / 2) if span is None else (span, span)
    slow = [
        [
            slow_look(image, where, size, options["scales"], spans, options["background"])
            for image, where in zip(pictures.tolist(), wheres, strict=True)
        ]
        for wheres in locations.tolist()
    ]
    seen = look(GlimpseSensor(tuple(pictures.shape[1:]), **options), pictures, locations)
    torch.testing.assert_close(seen, torch.tensor(slow), rtol=0, atol=1e-6)


def test_locations_without_rollouts_are_the_same_glimpses():
    sensor, images, locations = GlimpseSensor((2, 9, 7), size=3, scales=2), torch.rand(4, 2, 9, 7), torch.rand(4, 2)
    seen = look(sensor, images, locations)
    assert seen.shape == (4, 2, 2, 3, 3)
    assert sensor.features == seen[0].numel()
    torch.testing.assert_close(look(sensor, images, locations[None])[0], seen, **exact)


class TestBorder:
    """A picture in one shade of grey goes on beyond its border without an edge."""

    locations = torch.tensor([[-1.0, -1.0], [1.0, 0.3], [0.0, 0.0], [9.0, -9.0]])

    @pytest.mark.parametrize("span", [None, 3.0, 20.0])
    def test_padding_shows_no_edge(self, span):
        shades = torch.tensor([0.2, 0.0, 0.7])
        images = shades.reshape(3, 1, 1).expand(4, 3, 11, 6)
        sensor = GlimpseSensor((3, 11, 6), size=4, scales=4, span=span, background=shades.tolist())
        assert look(sensor, images, self.locations).eq(0).all()

    def test_another_background_shows_one(self):
        images = torch.full((4, 1, 11, 6), 0.2)
        sensor = GlimpseSensor((1, 11, 6), size=4, scales=4, background=0.0)
        assert look(sensor, images, self.locations).unique().numel() > 1

    def test_every_grey_level_of_a_file_can_be_the_background(self):
        for level in range(256):
            images = torch.full((1, 1, 6, 6), level, dtype=torch.uint8)
            sensor = GlimpseSensor((1, 6, 6), size=4, scales=2, background=border_median(images))
            assert look(sensor, images / 255, torch.ones(1, 2)).eq(0).all()

    def test_one_shade_holds_for_all_channels(self):
        sensor = GlimpseSensor((3, 6, 6), size=4, scales=2, background=0.5)
        assert look(sensor, torch.full((1, 3, 6, 6), 0.5), torch.ones(1, 2)).eq(0).all()


class TestSpan:
    def test_by_default_the_finest_patch_stops_exactly_at_the_border(self):
        image = torch.rand(1, 1, 9, 6)
        corners = {(-1.0, -1.0): image[0, 0, :4, :4], (1.0, 1.0): image[0, 0, 5:, 2:], (-1.0, 1.0): image[0, 0, :4, 2:]}
        sensor = GlimpseSensor((1, 9, 6), size=4)
        for location, corner in corners.items():
            torch.testing.assert_close(look(sensor, image, torch.tensor([location]))[0, 0, 0], corner, **exact)

    def test_it_counts_pixels_along_both_axes(self):
        sensor = GlimpseSensor((1, 9, 6), size=4, span=2.5)
        assert sensor.centres(torch.tensor([[0.0, 0.0], [1.0, -1.0]])).tolist() == [[4.0, 2.5], [6.5, 0.0]]

    def test_beyond_one_a_location_is_clipped(self):
        sensor, images = GlimpseSensor((1, 9, 6), size=4, scales=2), torch.rand(2, 1, 9, 6)
        near, far = torch.tensor([[1.0, -1.0], [-1.0, 0.5]]), torch.tensor([[1e6, -1.01], [-torch.inf, 0.5]])
        torch.testing.assert_close(look(sensor, images, far), look(sensor, images, near), **exact)
        torch.testing.assert_close(sensor.centres(far), sensor.centres(near), **exact)

    @pytest.mark.parametrize("size", [3, 4])
    def test_half_a_pixel_goes_down_and_right_however_wide_the_padding_is(self, size):
        image = torch.rand(1, 1, 9, 10)
        top, left = math.ceil((9 - size) / 2), math.ceil((10 - size) / 2)
        for span in range(1, 9):
            sensor = GlimpseSensor((1, 9, 10), size=size, span=float(span))
            seen = look(sensor, image, torch.zeros(1, 2))[0, 0, 0]
            torch.testing.assert_close(seen, image[0, 0, top : top + size, left : left + size], **exact)

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32), st.integers(1, 4))
    def test_pixels_come_from_around_the_centre_that_is_told(self, vertical, horizontal, size):
        """In a picture of its own coordinates the mean of a patch is the middle of what it shows."""
        rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(30.0), indexing="ij")
        sensor = GlimpseSensor((2, 40, 30), size=size, scales=2, span=9.0)
        location = torch.tensor([[vertical, horizontal]])
        seen = look(sensor, torch.stack([rows, columns])[None], location).mean((-1, -2))[0]
        assert (seen - sensor.centres(location)).abs().max() <= 0.501  # to the nearest pixel


def test_each_scale_covers_twice_the_side_of_the_one_before():
    assert GlimpseSensor((1, 28, 28), size=5, scales=3).sides == (5, 10, 20)


def test_the_gaze_gets_no_gradient_through_the_pixels():
    location = torch.zeros(1, 2, requires_grad=True)
    sensor = GlimpseSensor((1, 9, 9), size=3)
    assert not look(sensor, torch.rand(1, 1, 9, 9), location).requires_grad


def test_a_location_that_is_not_a_number_is_no_error_here():
    """The loss is where it is noticed, and the term is named there."""
    sensor = GlimpseSensor((1, 9, 9), size=3)
    assert look(sensor, torch.rand(1, 1, 9, 9), torch.full((1, 2), math.nan)).shape == (1, 1, 1, 3, 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 0}, "at least 1 pixel"),
        ({"scales": 0}, "at least 1 pixel and 1 scale"),
        ({"size": 6}, "covers a whole side of a 9×6 picture; choose a smaller size, or say with span"),
        ({"size": 7}, "covers a whole side"),
        ({"span": 0.0}, "span must be a positive number of pixels, got 0"),
        ({"span": -2.0}, "span must be a positive"),
        ({"span": math.nan}, "span must be a positive"),
        ({"span": math.inf}, "span must be a positive"),
        ({"background": (0.0, 0.0)}, "background must give 1 or 3 numbers, got 2"),
    ],
)
def test_an_option_that_makes_no_sense_is_an_error(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        GlimpseSensor((3, 9, 6), **{"size": 4, **options})


@pytest.mark.parametrize("shape", [(2, 1, 9, 6), (2, 3, 6, 9), (2, 3, 9, 7)])
def test_pictures_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"made for pictures of \(channels, height, width\) = \(3, 9, 6\), got .*2, "):
        GlimpseSensor((3, 9, 6), size=4).windows(torch.zeros(shape))


def test_a_glimpse_larger_than_the_picture_is_possible_if_the_span_is_given():
    image = torch.rand(1, 1, 3, 5)
    seen = look(GlimpseSensor((1, 3, 5), size=5, span=1.0), image, torch.zeros(1, 2))[0, 0, 0]
    torch.testing.assert_close(seen[1:4], image[0, 0], **exact)
    assert seen[[0, 4]].eq(0).all()
