import numpy as np
import pytest

from zoo.plotting.episodes import checked_episodes, covered_pixels


@pytest.mark.parametrize("side", [1, 2, 5, 8])
@pytest.mark.parametrize("centre", [10.0, 10.5, 10.3])
def test_a_side_of_g_pixels_covers_g_rows_and_g_columns_wherever_it_lies(side, centre):
    mask = covered_pixels((21, 25), np.array([[centre, centre + 2]]), side)
    assert mask.any(axis=1).sum() == mask.any(axis=0).sum() == side
    assert mask.sum() == side**2


def test_the_covered_pixels_lie_around_the_centre_in_row_and_column():
    mask = covered_pixels((28, 28), np.array([[9.5, 19.5]]), 8)
    expected = np.zeros((28, 28), dtype=bool)
    expected[6:14, 16:24] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_square_partly_outside_covers_only_what_lies_inside():
    mask = covered_pixels((28, 30), np.array([[-0.5, 29.5]]), 8)
    assert mask[:4, 26:].all()
    assert mask.sum() == 16


def test_several_squares_cover_their_union():
    first, second = np.array([[5.5, 5.5]]), np.array([[7.5, 5.5]])
    both = covered_pixels((20, 20), np.concatenate([first, second]), 4)
    np.testing.assert_array_equal(both, covered_pixels((20, 20), first, 4) | covered_pixels((20, 20), second, 4))
    assert both.sum() == 24


def test_the_finest_side_is_the_smallest_in_any_order(looks):
    assert checked_episodes(**looks | {"sides": (24, 12, 48)}).finest == 12


@pytest.mark.parametrize("sides", [(), (0,), (8, -1), (float("nan"),), (float("inf"),)])
def test_sides_are_positive_and_at_least_one(looks, sides):
    with pytest.raises(ValueError, match=r"^sides must be one or more positive numbers of pixels"):
        checked_episodes(**looks | {"sides": sides})


def test_tiles_come_one_per_scale(looks):
    seen = np.zeros((3, 2, 2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"^seen must have the shape \(N=3, T=2, S=1, C=1, g, g\)"):
        checked_episodes(**looks, seen=seen)
    assert checked_episodes(**looks | {"sides": (8, 16)}, seen=seen).tiles is not None
