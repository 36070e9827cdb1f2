import matplotlib
import pytest

from zoo.plotting._style import PAGE_WIDTH, Page, figure_style


def test_figure_style_overrides_and_restores_the_users_style():
    with matplotlib.rc_context({"axes.facecolor": "red", "font.family": "serif"}):
        with figure_style():
            assert matplotlib.rcParams["axes.facecolor"] == "white"
            assert matplotlib.rcParams["font.family"] == ["DejaVu Sans"]
        assert matplotlib.rcParams["axes.facecolor"] == "red"
        assert matplotlib.rcParams["font.family"] == ["serif"]


def test_page_positions_are_inches_from_the_top_left():
    page = Page(4.0)
    box = page.axes("panel", left=1.0, top=0.5, width=2.0, height=1.0).get_position()
    assert (box.x0 * PAGE_WIDTH, box.x1 * PAGE_WIDTH) == pytest.approx((1, 3))
    assert (4 - box.y1 * 4, 4 - box.y0 * 4) == pytest.approx((0.5, 1.5))
    x, y = page.text("here", left=1.0, top=0.5).get_position()
    assert (x * PAGE_WIDTH, 4 - y * 4) == pytest.approx((1, 0.5))


def test_dollar_in_a_text_is_not_math():
    with figure_style():
        assert not Page(1.0).text("$x$", left=0.0, top=0.5).get_parse_math()
