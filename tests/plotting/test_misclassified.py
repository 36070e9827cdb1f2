import numpy as np
import pytest

from zoo.plotting import misclassified, save_figure


@pytest.fixture
def answers():
    """Five images of one gray level each; those at 1, 2 and 4 are misclassified."""
    probabilities = np.full((5, 3), 0.05)
    predicted = np.array([0, 1, 2, 1, 0])
    probabilities[np.arange(5), predicted] = [0.9, 0.6, 0.9, 0.9, 0.8]
    return {
        "images": np.linspace(0, 1, 5)[:, None, None, None] * np.ones((5, 1, 8, 8)),
        "labels": np.array([0, 0, 1, 1, 2]),
        "predicted": predicted,
        "probabilities": probabilities,
        "classes": ("4", "7", "9"),
    }


def texts(figure):
    return [text.get_text() for text in figure.texts]


def shades(figure):
    return [float(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]


def test_misclassified_images_are_sorted_by_confidence(answers):
    figure = misclassified(**answers)
    assert shades(figure) == [0.5, 1.0, 0.25]
    assert texts(figure)[2:] == ["7 → 9 (90 %)", "9 → 4 (80 %)", "4 → 7 (60 %)"]
    assert texts(figure)[0] == "3 mistakes in 5"
    assert "most confident first" in texts(figure)[1]


def test_equal_confidence_keeps_the_order():
    shade = np.arange(40) / 40
    images = shade[:, None, None, None] * np.ones((40, 1, 2, 2))
    ones = np.ones(40, dtype=int)
    probabilities = np.where(np.arange(40)[:, None] % 2, 0.3, 0.6) * np.ones((40, 2))
    figure = misclassified(images, ones * 0, ones, probabilities, ("a", "b"))
    assert shades(figure) == [*shade[::2], *shade[1::2]]


def test_title_counts_mistakes_beyond_max_images(answers):
    figure = misclassified(**answers, max_images=2)
    assert shades(figure) == [0.5, 1.0]
    assert texts(figure)[0] == "3 mistakes in 5"
    assert "the 2 most confident" in texts(figure)[1]


def test_title_contains_total(answers):
    assert texts(misclassified(**answers, total=10_000))[0] == "3 mistakes in 10,000"


def test_title_of_one_mistake_is_singular(answers):
    answers["predicted"] = np.array([0, 0, 1, 1, 0])
    assert texts(misclassified(**answers))[0] == "1 mistake in 5"


def test_figure_without_mistakes_has_a_title_only(answers, tmp_path):
    figure = misclassified(**answers | {"predicted": answers["labels"]})
    assert texts(figure) == ["No mistakes in 5", "every image was assigned to its true class"]
    assert figure.axes == []
    save_figure(figure, tmp_path / "none.png")


def test_empty_arrays_with_a_total_have_no_mistakes(answers):
    none = {name: answers[name][:0] for name in ("images", "labels", "predicted", "probabilities")}
    assert texts(misclassified(**answers | none, total=10_000))[0] == "No mistakes in 10,000"
    with pytest.raises(ValueError, match=r"^images is empty"):
        misclassified(**answers | none)


def test_long_names_are_wrapped_and_images_do_not_overlap(answers, tmp_path):
    answers["classes"] = ("immature granulocyte", "eosinophil", "basophil")
    answers = {name: np.repeat(value, 10, axis=0) if name != "classes" else value for name, value in answers.items()}
    figure = misclassified(**answers)
    assert "immature granulocyte →\neosinophil (60 %)" in texts(figure)
    save_figure(figure, tmp_path / "names.png")
    boxes = [text.get_window_extent() for text in figure.texts[2:]] + [axes.bbox for axes in figure.axes]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[i + 1 :]) == 0


@pytest.mark.parametrize("size", [(20, 40), (40, 20)])
def test_color_images_keep_their_aspect_ratio(answers, size):
    figure = misclassified(**answers | {"images": np.random.default_rng(0).random((5, 3, *size))})
    for axes in figure.axes:
        assert axes.bbox.height / axes.bbox.width == pytest.approx(size[0] / size[1])


BAD = {
    "images": [np.zeros((5, 8, 8)), np.full((5, 1, 8, 8), 2.0), np.full((5, 1, 8, 8), np.nan)],
    "labels": [np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1, 3])],
    "predicted": [np.array([0, 1, 2, 1, -1])],
    "probabilities": [np.zeros((4, 3)), np.full((5, 3), 1.5)],
    "classes": [("4", "7")],
    "max_images": [0],
    "total": [4],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_invalid_argument_is_named_in_one_line(answers, name, value):
    with pytest.raises(ValueError, match=rf"^{name} [^\n]*$"):
        misclassified(**answers | {name: value})
