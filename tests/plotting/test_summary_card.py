from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from zoo.plotting._style import PAGE_WIDTH, Page, figure_style
from zoo.plotting._summary_card import (
    GlimpseData,
    covered_pixels,
    draw_legend,
    draw_summary_cards,
    make_layout,
    prediction_heading,
)


@pytest.fixture
def data(arguments):
    return GlimpseData(**arguments)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_correct_and_wrong_predictions_differ_in_more_than_color(data):
    right, wrong = prediction_heading(data, 0, 2), prediction_heading(data, 2, 2)
    assert right[0] == "✓ zero (70 %)"
    assert wrong[0] == "✗ two (70 %), but it is three"
    assert right[1] != wrong[1]


def test_heading_is_neutral_before_the_last_glimpse(data):
    assert prediction_heading(data, 0, 1)[0] == "three (70 %) …"


def test_each_image_has_its_heading(data):
    assert [text for text in texts(draw_summary_cards(data, 2)) if text[0] in "✓✗"] == [
        "✓ zero (70 %)",
        "✓ one (70 %)",
        "✗ two (70 %), but it is three",
    ]


def test_positions_are_equal_for_every_number_of_glimpses(data):
    first, second = draw_summary_cards(data, 1), draw_summary_cards(data, 2)
    assert first.get_size_inches().tolist() == second.get_size_inches().tolist()
    assert [axes.get_position().bounds for axes in first.axes] == [axes.get_position().bounds for axes in second.axes]


def test_only_the_first_glimpses_are_drawn(data):
    for shown in (1, 2):
        path, _, probabilities = draw_summary_cards(data, shown).axes[:3]
        assert len(path.patches) == shown
        assert probabilities.collections[0].get_array().shape == (4, shown)
        assert [text.get_text() for text in probabilities.texts] == [*"12"[:shown], "◂"]


def test_title_of_revealed_pixels_depends_on_the_number_of_scales(arguments, data):
    assert "pixels seen" in texts(draw_summary_cards(data, 2))
    coarse = GlimpseData(**arguments | {"patch_sizes": (8, 16)})
    assert "pixels seen" not in texts(draw_summary_cards(coarse, 2))
    assert "pixels seen in full detail" in texts(draw_summary_cards(coarse, 2))


@pytest.mark.parametrize("side", [1, 2, 5, 8])
@pytest.mark.parametrize("center", [10.0, 10.5, 10.3])
def test_side_of_g_pixels_covers_g_rows_and_columns_at_any_position(side, center):
    mask = covered_pixels((21, 25), np.array([[center, center + 2]]), side)
    assert mask.any(axis=1).sum() == mask.any(axis=0).sum() == side
    assert mask.sum() == side**2


def test_covered_pixels_surround_the_center():
    mask = covered_pixels((28, 28), np.array([[9.5, 19.5]]), 8)
    expected = np.zeros((28, 28), dtype=bool)
    expected[6:14, 16:24] = True
    np.testing.assert_array_equal(mask, expected)


def test_square_partly_outside_covers_only_pixels_inside():
    mask = covered_pixels((28, 30), np.array([[-0.5, 29.5]]), 8)
    assert mask[:4, 26:].all()
    assert mask.sum() == 16


def test_several_squares_cover_their_union():
    first, second = np.array([[5.5, 5.5]]), np.array([[7.5, 5.5]])
    both = covered_pixels((20, 20), np.concatenate([first, second]), 4)
    np.testing.assert_array_equal(both, covered_pixels((20, 20), first, 4) | covered_pixels((20, 20), second, 4))
    assert both.sum() == 24


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_legend_explains_random_start_and_patch_size():
    figure = Page(2.0).figure
    draw_legend(figure, (8.0,))
    assert labels(figure)[0] == "random start"
    assert "glimpse (8 pixels wide)" in labels(figure)


def test_legend_lists_the_patch_sizes_in_ascending_order(arguments):
    figure = draw_summary_cards(GlimpseData(**arguments | {"patch_sizes": (24.0, 48.0, 12.0)}), 2)
    assert "glimpse (12, 24, 48 pixels wide)" in labels(figure)


def test_legend_fits_the_page():
    with figure_style():
        figure = Page(2.0).figure
        draw_legend(figure, (12.0, 24.0, 48.0))
        FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def make_data(arguments, *, size=(28, 28), steps=2, patch_sizes=(8,), classes=("zero", "one", "two", "three")):
    n = 3
    return GlimpseData(
        np.zeros((n, 1, *size)),
        np.full((n, steps, 2), 10.0),
        patch_sizes,
        np.full((n, steps, len(classes)), 0.1),
        arguments["labels"],
        classes,
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
    "many glimpses and far too long names": {"steps": 20, "classes": ("y" * 200, "b", "c", "d")},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_panels_do_not_overlap_and_stay_inside_card_and_page(arguments, case):
    layout = make_layout(make_data(arguments, **case))
    for left, top, width, height in layout.panels.values():
        assert min(left, top) >= 0
        assert min(width, height) > 0.05
        assert left + width <= layout.card_width + 1e-9
        assert top + height <= layout.card_height + 1e-9
    for a, b in combinations(layout.panels.values(), 2):
        disjoint = [a[i] + a[i + 2] <= b[i] + 1e-9 or b[i] + b[i + 2] <= a[i] + 1e-9 for i in (0, 1)]
        assert any(disjoint)
    left, _ = layout.corner(layout.columns - 1)
    assert layout.corner(0)[0] >= 0
    assert left + layout.card_width <= PAGE_WIDTH


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_titles_of_panels_do_not_overlap_however_few_the_glimpses(arguments, steps):
    figure = draw_summary_cards(make_data(arguments, steps=steps, classes="0123456789"), steps)
    canvas = FigureCanvasAgg(figure)
    with figure_style():
        canvas.draw()
    titles = ("glimpses", "pixels seen", "class probabilities")
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts if text.get_text() in titles]
    assert len(boxes) == 6
    assert all(one.x1 < other.x0 or other.x1 < one.x0 for one, other in combinations(boxes, 2))
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_squares_outside_the_image_do_not_reach_another_panel_or_the_edge(arguments):
    data = GlimpseData(**arguments | {"centers": np.full((3, 2, 2), 27.0)})
    layout = make_layout(data)
    left, top, width, height = layout.panels["fixations"]
    margin = data.margin * width / 28
    assert margin > 0.1
    assert left >= margin - 1e-9
    assert top >= margin - 1e-9
    assert top + height + margin <= layout.card_height
    assert left + width + margin < layout.panels["revealed"][0]


@pytest.mark.parametrize("size", [(28, 28), (64, 20), (20, 64)])
def test_images_keep_their_aspect_ratio(arguments, size):
    panels = make_layout(make_data(arguments, size=size)).panels
    for name in ("fixations", "revealed"):
        assert panels[name][3] / panels[name][2] == pytest.approx(size[0] / size[1])


def test_digits_use_two_columns_and_with_long_names_one(arguments):
    assert make_layout(make_data(arguments)).columns == 2
    assert make_layout(make_data(arguments, classes=("x" * 200, "b", "c", "d"))).columns == 1


def test_cards_are_in_row_major_order(arguments):
    layout = make_layout(make_data(arguments))
    (left0, top0), (left1, top1), (left2, top2) = (layout.corner(i) for i in range(3))
    assert left0 == left2 < left1
    assert top0 == top1
    assert top2 == top0 + layout.card_height


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
    assert GlimpseData(**arguments).margin == pixels


def test_margin_is_that_of_the_finest_patch_in_any_order(arguments):
    arguments["centers"] = np.full((3, 2, 2), 27.0)
    assert GlimpseData(**arguments | {"patch_sizes": (24, 12, 48)}).margin == 5.5


@pytest.mark.parametrize("patch_sizes", [(), (0,), (8, -1), (float("nan"),), (float("inf"),)])
def test_patch_sizes_must_be_positive_and_not_empty(arguments, patch_sizes):
    with pytest.raises(ValueError, match=r"^patch_sizes must be one or more positive numbers of pixels"):
        GlimpseData(**arguments | {"patch_sizes": patch_sizes})
