import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from zoo.plotting._layout import check_glimpse_data
from zoo.plotting._style import Page, figure_style
from zoo.plotting._summary_card import covered_pixels, draw_legend, draw_summary_cards, prediction_heading


@pytest.fixture
def data(arguments):
    return check_glimpse_data(**arguments)


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
        path, _, probabilities, numbers = draw_summary_cards(data, shown).axes[:4]
        assert len(path.patches) == shown
        assert probabilities.collections[0].get_array().shape == (4, shown)
        assert [text.get_text() for text in numbers.texts] == ["1", "2"][:shown]


def test_title_of_revealed_pixels_depends_on_the_number_of_scales(arguments, data):
    assert "what it has seen" in texts(draw_summary_cards(data, 2))
    coarse = check_glimpse_data(**arguments | {"patch_sizes": (8, 16)})
    assert "what it has seen" not in texts(draw_summary_cards(coarse, 2))
    assert "seen in full detail" in texts(draw_summary_cards(coarse, 2))


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


def test_legend_lists_the_patch_sizes_in_ascending_order():
    figure = Page(2.0).figure
    draw_legend(figure, (24.0, 48.0, 12.0))
    assert "glimpse (12, 24, 48 pixels wide)" in labels(figure)


def test_legend_fits_the_page():
    with figure_style():
        figure = Page(2.0).figure
        draw_legend(figure, (12.0, 24.0, 48.0))
        FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
