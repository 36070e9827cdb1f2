from itertools import combinations

import numpy as np
import pytest

from zoo.plotting._layout import check_glimpse_data, make_layout
from zoo.plotting._style import PAGE_WIDTH


def make_data(
    arguments, *, size=(28, 28), steps=2, patch_sizes=(8,), classes=("zero", "one", "two", "three"), patches=False
):
    n = 3
    return check_glimpse_data(
        np.zeros((n, 1, *size)),
        np.full((n, steps, 2), 10.0),
        patch_sizes,
        np.full((n, steps, len(classes)), 0.1),
        arguments["labels"],
        classes,
        np.zeros((n, steps, len(patch_sizes), 1, 8, 8)) if patches else None,
    )


CASES = {
    "small": {},
    "tall": {"size": (64, 20)},
    "wide": {"size": (20, 64)},
    "many glimpses": {"steps": 12},
    "far too many glimpses": {"steps": 60},
    "long names": {"classes": ("immature granulocyte", "b", "c", "d")},
    "far too long names": {"classes": ("x" * 200, "b", "c", "d")},
    "many classes": {"classes": tuple(map(str, range(40)))},
    "patches": {"patches": True},
    "patches at three scales": {"patches": True, "patch_sizes": (8, 16, 32)},
    "patches of many glimpses and long names": {
        "patches": True,
        "steps": 20,
        "classes": ("y" * 200, "b", "c", "d"),
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_panels_do_not_overlap_and_stay_inside_card_and_page(arguments, case):
    layout = make_layout(make_data(arguments, **case))
    for left, top, width, height in layout.panels.values():
        assert min(left, top) >= 0
        assert min(width, height) > 0.05
        assert left + width <= layout.card[0] + 1e-9
        assert top + height <= layout.card[1] + 1e-9
    for a, b in combinations(layout.panels.values(), 2):
        disjoint = [a[i] + a[i + 2] <= b[i] + 1e-9 or b[i] + b[i + 2] <= a[i] + 1e-9 for i in (0, 1)]
        assert any(disjoint)
    left, _ = layout.corner(layout.columns - 1)
    assert layout.corner(0)[0] >= 0
    assert left + layout.card[0] <= PAGE_WIDTH


@pytest.mark.parametrize("with_patches", [False, True])
def test_squares_outside_the_image_do_not_reach_another_panel_or_the_edge(arguments, with_patches):
    patches = np.zeros((3, 2, 1, 1, 8, 8)) if with_patches else None
    data = check_glimpse_data(**arguments | {"centers": np.full((3, 2, 2), 27.0)}, patches=patches)
    layout = make_layout(data)
    left, top, width, height = layout.panels["fixations"]
    margin = data.margin * width / 28
    assert margin > 0.1
    assert left >= margin - 1e-9
    assert top >= margin - 1e-9
    assert top + height + margin <= layout.card[1]
    assert left + width + margin < layout.panels["revealed"][0]


@pytest.mark.parametrize("size", [(28, 28), (64, 20), (20, 64)])
def test_images_keep_their_aspect_ratio(arguments, size):
    panels = make_layout(make_data(arguments, size=size)).panels
    for name in ("fixations", "revealed"):
        assert panels[name][3] / panels[name][2] == pytest.approx(size[0] / size[1])


def test_digits_use_two_columns_and_with_patches_one(arguments):
    assert make_layout(make_data(arguments)).columns == 2
    assert make_layout(make_data(arguments, patches=True)).columns == 1


def test_cards_are_in_row_major_order(arguments):
    layout = make_layout(make_data(arguments))
    (left0, top0), (left1, top1), (left2, top2) = (layout.corner(i) for i in range(3))
    assert left0 == left2 < left1
    assert top0 == top1 == 0
    assert top2 == layout.card[1]


@pytest.mark.parametrize(
    ("center", "pixels"),
    [
        ((13.5, 13.5), 0),
        ((3.5, 13.5), 0),
        ((3.0, 13.5), 0.5),
        ((0, 13.5), 3.5),
        ((13.5, 27), 3.5),
        ((27, 0), 3.5),
    ],
)
def test_margin_is_the_distance_squares_extend_beyond_the_image(arguments, center, pixels):
    arguments["centers"] = np.full((3, 2, 2), 13.5)
    arguments["centers"][1, 1] = center
    assert check_glimpse_data(**arguments).margin == pixels


def test_margin_is_that_of_the_finest_patch_in_any_order(arguments):
    arguments["centers"] = np.full((3, 2, 2), 27.0)
    assert check_glimpse_data(**arguments | {"patch_sizes": (24, 12, 48)}).margin == 5.5


@pytest.mark.parametrize("patch_sizes", [(), (0,), (8, -1), (float("nan"),), (float("inf"),)])
def test_patch_sizes_must_be_positive_and_not_empty(arguments, patch_sizes):
    with pytest.raises(ValueError, match=r"^patch_sizes must be one or more positive numbers of pixels"):
        check_glimpse_data(**arguments | {"patch_sizes": patch_sizes})


def test_patches_must_have_one_entry_per_scale(arguments):
    patches = np.zeros((3, 2, 2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"^patches must have the shape \(N=3, T=2, S=1, C=1, g, g\)"):
        check_glimpse_data(**arguments, patches=patches)
    assert check_glimpse_data(**arguments | {"patch_sizes": (8, 16)}, patches=patches).patches is not None
