import pytest
import torch

from zoo.plotting import caption_attention

WORDS = [["a", "dog", "runs"], ["two", "dogs"]]


@pytest.fixture
def arrays():
    probabilities = torch.zeros(2, 3, 16)
    probabilities[..., 6] = 1.0  # row 1, column 2
    return {
        "images": torch.ones(2, 3, 40, 80),
        "words": WORDS,
        "probabilities": probabilities,
        "cells": torch.full((2, 3), 6),
    }


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() == "image"]


def test_each_image_has_a_panel_for_itself_and_for_each_word(arrays):
    figure = caption_attention(**arrays)
    assert len(panels(figure)) == (1 + 3) + (1 + 2)
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["a dog runs", "a", "dog", "runs", "two dogs", "two", "dogs"]


def test_likely_cell_is_bright_and_framed_and_others_are_dark(arrays):
    panel = panels(caption_attention(**arrays))[1]
    pixels = panel.images[0].get_array()
    assert pixels[10:20, 40:60].min() == 1.0
    assert pixels[0:10].max() < 0.5
    (frame,) = panel.patches
    assert frame.get_bbox().bounds == (39.5, 9.5, 20, 10)


def test_first_panel_is_the_image_itself(arrays):
    first = panels(caption_attention(**arrays))[0]
    assert first.images[0].get_array().min() == 1.0
    assert not first.patches


def test_headings_replace_the_captions(arrays):
    figure = caption_attention(**arrays, headings=["best", "worst"])
    assert [text.get_text() for text in figure.texts][:1] == ["best"]


def test_long_captions_continue_in_a_further_row(arrays):
    words, steps = [["word"] * 12], 12
    arrays = {
        "images": torch.ones(1, 3, 8, 8),
        "words": words,
        "probabilities": torch.full((1, steps, 4), 0.25),
        "cells": torch.zeros(1, steps, dtype=torch.long),
    }
    tops = {round(axes.get_position().y0, 3) for axes in panels(caption_attention(**arrays))}
    assert len(tops) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": torch.full((2, 3, 15), 0.1)}, "a square grid, got 15 cells"),
        ({"images": torch.full((2, 3, 4, 4), 2.0)}, "images must lie in"),
        ({"cells": torch.full((2, 3), 16)}, "cells must lie between 0 and 15"),
    ],
)
def test_wrong_arrays_are_named(arrays, change, message):
    with pytest.raises(ValueError, match=message):
        caption_attention(**{**arrays, **change})
