from itertools import combinations

import numpy as np
import pytest

from zoo.plotting.episodes import checked_episodes
from zoo.plotting.layout import layout_for, sticking_out
from zoo.plotting.style import WIDTH


def episodes(looks, *, size=(28, 28), steps=2, sides=(8,), classes=("zero", "one", "two", "three"), tiles=False):
    n = 3
    return checked_episodes(
        np.zeros((n, 1, *size)),
        np.full((n, steps, 2), 10.0),
        sides,
        np.full((n, steps, len(classes)), 0.1),
        looks["labels"],
        classes,
        np.zeros((n, steps, len(sides), 1, 8, 8)) if tiles else None,
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
    "tiles": {"tiles": True},
    "tiles at three scales": {"tiles": True, "sides": (8, 16, 32)},
    "tiles of many glimpses and long names": {
        "tiles": True,
        "steps": 20,
        "classes": ("y" * 200, "b", "c", "d"),
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_panels_neither_overlap_nor_leave_their_card_nor_the_page(looks, case):
    layout = layout_for(episodes(looks, **case))
    for left, top, width, height in layout.panels.values():
        assert min(left, top) >= 0
        assert min(width, height) > 0.05
        assert left + width <= layout.card[0] + 1e-9
        assert top + height <= layout.card[1] + 1e-9
    for a, b in combinations(layout.panels.values(), 2):
        apart = [a[i] + a[i + 2] <= b[i] + 1e-9 or b[i] + b[i + 2] <= a[i] + 1e-9 for i in (0, 1)]
        assert any(apart)
    left, _ = layout.corner(layout.columns - 1)
    assert layout.corner(0)[0] >= 0
    assert left + layout.card[0] <= WIDTH


@pytest.mark.parametrize("tiles", [False, True])
def test_squares_that_stick_out_reach_neither_another_panel_nor_the_edge_of_the_card(looks, tiles):
    seen = np.zeros((3, 2, 1, 1, 8, 8)) if tiles else None
    e = checked_episodes(**looks | {"centres": np.full((3, 2, 2), 27.0)}, seen=seen)
    layout = layout_for(e)
    left, top, width, height = layout.panels["path"]
    room = sticking_out(e) * width / 28
    assert room > 0.1
    assert left >= room - 1e-9
    assert top >= room - 1e-9
    assert top + height + room <= layout.card[1]
    assert left + width + room < layout.panels["seen"][0]


@pytest.mark.parametrize("size", [(28, 28), (64, 20), (20, 64)])
def test_pictures_keep_their_proportions(looks, size):
    panels = layout_for(episodes(looks, size=size)).panels
    for name in ("path", "seen"):
        assert panels[name][3] / panels[name][2] == pytest.approx(size[0] / size[1])


def test_digits_stand_in_two_columns_and_with_tiles_in_one(looks):
    assert layout_for(episodes(looks)).columns == 2
    assert layout_for(episodes(looks, tiles=True)).columns == 1


def test_cards_fill_a_row_before_the_next(looks):
    layout = layout_for(episodes(looks))
    (left0, top0), (left1, top1), (left2, top2) = (layout.corner(i) for i in range(3))
    assert left0 == left2 < left1
    assert top0 == top1 == 0
    assert top2 == layout.card[1]


@pytest.mark.parametrize(
    ("centre", "pixels"),
    [
        ((13.5, 13.5), 0),
        ((3.5, 13.5), 0),
        ((3.0, 13.5), 0.5),
        ((0, 13.5), 3.5),
        ((13.5, 27), 3.5),
        ((27, 0), 3.5),
    ],
)
def test_the_room_around_a_picture_is_what_its_squares_need(looks, centre, pixels):
    looks["centres"] = np.full((3, 2, 2), 13.5)
    looks["centres"][1, 1] = centre
    assert sticking_out(checked_episodes(**looks)) == pixels
