from matplotlib.backends.backend_agg import FigureCanvasAgg

from zoo.plotting.key import draw_key
from zoo.plotting.style import Sheet, house_style


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_key_explains_the_random_start_and_the_size_of_a_glimpse():
    figure = Sheet(2.0).figure
    draw_key(figure, (8.0,))
    assert labels(figure)[0] == "random start"
    assert "glimpse (8 pixels wide)" in labels(figure)


def test_the_key_lists_the_scales_from_fine_to_coarse():
    figure = Sheet(2.0).figure
    draw_key(figure, (24.0, 48.0, 12.0))
    assert "glimpse (12, 24, 48 pixels wide)" in labels(figure)


def test_the_key_fits_the_page():
    with house_style():
        figure = Sheet(2.0).figure
        draw_key(figure, (12.0, 24.0, 48.0))
        FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
