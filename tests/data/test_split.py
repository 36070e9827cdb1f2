import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data import ImageSet
from zoo.data.split import hold_out, stratified_split

EVEN = torch.arange(10).repeat_interleave(20)


def test_the_two_parts_are_disjoint_and_cover_the_set():
    kept, held_out = stratified_split(EVEN, 37, seed=0)
    assert len(held_out) == 37
    assert torch.cat([kept, held_out]).sort().values.tolist() == list(range(200))


def test_equal_classes_give_equal_shares():
    _, held_out = stratified_split(EVEN, 50, seed=3)
    assert EVEN[held_out].bincount().tolist() == [5] * 10


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(4, 40), min_size=1, max_size=6),
    share=st.floats(0.0, 0.5),
    seed=st.integers(0, 2**32),
)
def test_all_classes_give_the_same_fraction_but_for_rounding(sizes, share, seed):
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    count = int(share * len(labels))
    _, held_out = stratified_split(labels, count, seed)
    given_up = labels[held_out].bincount(minlength=len(sizes)).tolist()
    # g of m pictures is the fraction f, rounded, if f lies between (g - ½) / m and (g + ½) / m.
    lowest = max((2 * g - 1) / (2 * m) for g, m in zip(given_up, sizes, strict=True))
    highest = min((2 * g + 1) / (2 * m) for g, m in zip(given_up, sizes, strict=True))
    assert sum(given_up) == count
    assert lowest <= highest + 1e-9


def test_a_class_of_one_picture_is_kept_to_train_on():
    _, held_out = stratified_split(torch.tensor([0] * 9 + [1]), 1, seed=0)
    assert held_out.item() < 9


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    first, again, other = (stratified_split(EVEN, 40, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_split_neither_uses_nor_changes_the_global_random_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = stratified_split(EVEN, 40, seed=0)[1]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(stratified_split(EVEN, 40, seed=0)[1], first)


def test_a_label_that_does_not_occur_is_no_class():
    kept, held_out = stratified_split(torch.tensor([0, 0, 2, 2]), 2, seed=0)
    assert (len(kept), len(held_out)) == (2, 2)


@pytest.mark.parametrize("count", [199, 200, 300])
def test_a_class_that_would_be_left_with_nothing_is_an_error(count):
    with pytest.raises(ValueError, match=f"cannot hold out {count} of 200 pictures"):
        stratified_split(EVEN, count, seed=0)


def test_a_negative_number_is_an_error():
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        stratified_split(EVEN, -1, seed=0)


@pytest.fixture
def digits() -> ImageSet:
    return ImageSet(torch.arange(200, dtype=torch.uint8).reshape(200, 1, 1, 1), EVEN)


def test_holding_out_keeps_pictures_and_labels_together(digits):
    for part in hold_out(digits, 40, seed=0):
        assert torch.equal(EVEN[part.images.flatten().long()], part.labels)


def test_none_holds_out_a_tenth(digits):
    train, validation = hold_out(digits, None, seed=0)
    assert (len(train), len(validation)) == (180, 20)


def test_zero_holds_out_nothing(digits):
    train, validation = hold_out(digits, 0, seed=0)
    assert len(train) == 200
    assert validation is None
