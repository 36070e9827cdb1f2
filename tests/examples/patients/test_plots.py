import numpy as np
import pytest

from examples.patients.plots import Progress, prediction_curves

SECONDS = np.array([1.0, 2.0, 4.0, 8.0])
CHAIN = Progress(SECONDS, np.array([-9.0, -7.0, -5.0, -4.0]), warm_up=2.0)


def test_warm_up_is_faint_and_the_line_continues_after_it():
    faint, later, end = prediction_curves({"a chain": CHAIN}).axes[0].lines
    assert (faint.get_xdata().tolist(), later.get_xdata().tolist()) == ([1, 2], [2, 4, 8])
    assert faint.get_alpha() < 0.5
    assert later.get_alpha() is None
    assert end.get_xdata().tolist() == [8]


def test_without_warm_up_there_is_one_line():
    faint, later, _ = prediction_curves({"a guide": CHAIN._replace(warm_up=0.0)}).axes[0].lines
    assert len(faint.get_xdata()) == 0
    assert later.get_ydata().tolist() == CHAIN.per_lab.tolist()


def test_methods_differ_in_color_and_line_style_on_logarithmic_axes():
    axes = prediction_curves({"one": CHAIN, "other": CHAIN}).axes[0]
    one, other = axes.lines[1], axes.lines[4]
    assert one.get_color() != other.get_color()
    assert one.get_linestyle() != other.get_linestyle()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "symlog")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (CHAIN._replace(seconds=SECONDS - 1), "seconds of 'a chain' must be positive"),
        (CHAIN._replace(per_lab=SECONDS[:2]), "y of 'a chain' must have the shape"),
    ],
)
def test_invalid_values_are_named(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        prediction_curves({"a chain": wrong})


def test_empty_methods_raise():
    with pytest.raises(ValueError, match="no curve to draw"):
        prediction_curves({})
