from statistics import median_low

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data import ImageData, ImageSet
from zoo.data._splits import border_median, split_validation, stratified_split

EVEN = torch.arange(10).repeat_interleave(20)
IMAGES = torch.arange(3 * 2 * 4 * 5, dtype=torch.uint8).reshape(3, 2, 4, 5)


def test_set_is_indexed_by_a_tensor():
    images, labels = ImageSet(IMAGES, torch.tensor([7, 8, 9]))[torch.tensor([2, 0, 2])]
    assert torch.equal(images, torch.stack([IMAGES[2], IMAGES[0], IMAGES[2]]))
    assert labels.tolist() == [9, 7, 9]


def test_length_of_a_set_is_its_number_of_labels():
    assert len(ImageSet(IMAGES, torch.tensor([7, 8, 9]))) == 3


def test_set_is_immutable():
    with pytest.raises(AttributeError):
        ImageSet(IMAGES, torch.tensor([7, 8, 9])).labels = torch.tensor([0, 0, 0])


def test_image_shape_is_channels_height_width():
    train = ImageSet(IMAGES, torch.tensor([0, 1, 0]))
    data = ImageData("x", train, None, lambda: train, ("a", "b"), (0.0, 0.0))
    assert data.image_shape == (2, 4, 5)


def test_border_median_is_per_channel():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[:, 1], images[:, 2] = 51, 255
    assert border_median(images) == (0.0, 0.2, 1.0)


def test_border_median_uses_exactly_the_four_sides():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (1, 1, 5, 6), dtype=torch.uint8, generator=generator)
        rows = images[0, 0].tolist()
        border = rows[0] + rows[-1] + [row[0] for row in rows[1:-1]] + [row[-1] for row in rows[1:-1]]
        assert border_median(images) == (median_low(border) / 255,)


def test_single_pixel_is_border():
    assert border_median(torch.full((3, 1, 1, 1), 102, dtype=torch.uint8)) == (0.4,)


def test_split_is_disjoint_and_covers_the_set():
    kept, held_out = stratified_split(EVEN, 37, seed=0)
    assert len(held_out) == 37
    assert torch.cat([kept, held_out]).sort().values.tolist() == list(range(200))


def test_equal_classes_have_equal_shares():
    _, held_out = stratified_split(EVEN, 50, seed=3)
    assert EVEN[held_out].bincount().tolist() == [5] * 10


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(4, 40), min_size=1, max_size=6),
    share=st.floats(0.0, 0.5),
    seed=st.integers(0, 2**32),
)
def test_all_classes_have_the_same_fraction_up_to_rounding(sizes, share, seed):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    count = int(share * len(labels))
    _, held_out = stratified_split(labels, count, seed)
    given_up = labels[held_out].bincount(minlength=len(sizes)).tolist()
    # g of m images is the fraction f, rounded, if f lies between (g - ½) / m and (g + ½) / m.
    lowest = max((2 * g - 1) / (2 * m) for g, m in zip(given_up, sizes, strict=True))
    highest = min((2 * g + 1) / (2 * m) for g, m in zip(given_up, sizes, strict=True))
    assert sum(given_up) == count
    assert lowest <= highest + 1e-9


def test_class_of_one_image_is_kept_for_training():
    _, held_out = stratified_split(torch.tensor([0] * 9 + [1]), 1, seed=0)
    assert held_out.item() < 9


def test_split_depends_on_the_seed():
    first, again, other = (stratified_split(EVEN, 40, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_split_neither_uses_nor_changes_the_global_random_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = stratified_split(EVEN, 40, seed=0)[1]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(stratified_split(EVEN, 40, seed=0)[1], first)


def test_label_that_does_not_occur_is_no_class():
    kept, held_out = stratified_split(torch.tensor([0, 0, 2, 2]), 2, seed=0)
    assert (len(kept), len(held_out)) == (2, 2)


@pytest.mark.parametrize("count", [199, 200, 300])
def test_class_without_training_images_raises(count):
    with pytest.raises(ValueError, match=f"cannot hold out {count} of 200 images"):
        stratified_split(EVEN, count, seed=0)


def test_negative_count_raises():
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        stratified_split(EVEN, -1, seed=0)


@pytest.fixture
def digits() -> ImageSet:
    return ImageSet(torch.arange(200, dtype=torch.uint8).reshape(200, 1, 1, 1), EVEN)


def test_split_keeps_images_and_labels_together(digits):
    for part in split_validation(digits, 40, seed=0):
        assert torch.equal(EVEN[part.images.flatten().long()], part.labels)


def test_count_none_holds_out_a_tenth(digits):
    train, validation = split_validation(digits, None, seed=0)
    assert (len(train), len(validation)) == (180, 20)


def test_count_zero_holds_out_nothing(digits):
    train, validation = split_validation(digits, 0, seed=0)
    assert len(train) == 200
    assert validation is None
