import matplotlib
import pytest

from zoo.plotting.style import WIDTH, Sheet, house_style


def test_the_house_style_overrules_the_users_and_gives_it_back():
    with matplotlib.rc_context({"axes.facecolor": "red", "font.family": "serif"}):
        with house_style():
            assert matplotlib.rcParams["axes.facecolor"] == "white"
            assert matplotlib.rcParams["font.family"] == ["DejaVu Sans"]
        assert matplotlib.rcParams["axes.facecolor"] == "red"
        assert matplotlib.rcParams["font.family"] == ["serif"]


def test_a_sheet_counts_inches_from_its_top_left_corner():
    sheet = Sheet(4.0)
    box = sheet.axes("panel", left=1.0, top=0.5, width=2.0, height=1.0).get_position()
    assert (box.x0 * WIDTH, box.x1 * WIDTH) == pytest.approx((1, 3))
    assert (4 - box.y1 * 4, 4 - box.y0 * 4) == pytest.approx((0.5, 1.5))
    x, y = sheet.text("here", left=1.0, top=0.5).get_position()
    assert (x * WIDTH, 4 - y * 4) == pytest.approx((1, 0.5))


def test_a_class_may_have_a_dollar_in_its_name():
    with house_style():
        assert not Sheet(1.0).text("$x$", left=0.0, top=0.5).get_parse_math()
