from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from zoo.plotting._style import (
    CHAR_WIDTH,
    PAGE_WIDTH,
    TEXT_SIZE,
    TITLE_HEIGHT,
    Page,
    figure_style,
    format_percent,
    show_image,
)
from zoo.plotting._validation import Array, ArrayValidator

# All in inches.
EDGE, GAP = 0.06, 0.12  # beside the images, between two of them
LINE_HEIGHT, SPACE = 0.13, 0.13  # of a caption, below a caption
MIN_COLUMN_WIDTH, MAX_IMAGE_HEIGHT = 0.9, 1.3


def misclassified(
    images: Array,
    labels: Array,
    predicted: Array,
    probabilities: Array,
    classes: Sequence[str],
    max_images: int = 40,
    total: int | None = None,
) -> Figure:
    """Return a figure of the misclassified images, sorted by decreasing confidence: "4 → 9 (97 %)".

    Args:
        images: (N, C, H, W) between 0 and 1; C is 1 (gray) or 3 (RGB). Correctly classified ones are skipped.
        labels: (N,), the true classes, from 0 to K - 1.
        predicted: (N,), the predicted classes.
        probabilities: (N, K), class probabilities; that of the predicted class is the confidence.
        classes: names of the K classes.
        max_images: maximum number of images to show; the title counts all mistakes.
        total: number of classified images, if the arrays omit some correctly classified ones. Default: N.

    Raises:
        ValueError: an argument has the wrong shape or values outside its range; the message names it.

    Example:
        >>> import torch
        >>> labels, predicted = torch.tensor([4, 7, 1]), torch.tensor([9, 7, 1])
        >>> images, probabilities = torch.rand(3, 1, 28, 28), torch.full((3, 10), 0.1)
        >>> misclassified(images, labels, predicted, probabilities, "0123456789").texts[0].get_text()
        '1 mistake in 3'
    """
    if max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}")
    total = len(images) if total is None else total
    if total < len(images):
        raise ValueError(f"total must be at least the number of images, {len(images)}, got {total}")
    if total > 0 and len(images) == 0:
        return _captioned_images([], [], *_heading(0, 0, total))

    validator = ArrayValidator()
    rgb = validator.images("images", images, "N C H W")
    confidences = validator.unit("probabilities", probabilities, "N K")
    true = validator.class_indices("labels", labels, "N")
    predictions = validator.class_indices("predicted", predicted, "N")
    names = validator.class_names("classes", classes)

    confidence = confidences[np.arange(len(confidences)), predictions]
    order = np.argsort(-confidence, kind="stable")
    wrong = order[(true != predictions)[order]]
    shown = wrong[:max_images]
    captions = [f"{names[true[i]]} → {names[predictions[i]]} ({format_percent(confidence[i])})" for i in shown]
    return _captioned_images(list(rgb[shown]), captions, *_heading(len(shown), len(wrong), total))


def _heading(shown: int, count: int, total: int) -> tuple[str, str]:
    """Return title and subtitle."""
    if count == 0:
        return f"No mistakes in {total:,}", "every image was assigned to its true class"
    title = f"{count:,} mistake{'s' if count > 1 else ''} in {total:,}"
    order = "most confident first" if shown == count else f"the {shown:,} most confident"
    return title, f"true class → predicted class (its probability), {order}"


def _captioned_images(
    images: Sequence[Float[np.ndarray, "height width 3"]], captions: Sequence[str], title: str, subtitle: str
) -> Figure:
    """Return a grid of images with captions, in as many columns as remain readable."""
    if _text_width(captions) > MIN_COLUMN_WIDTH:
        captions = [caption.replace("→ ", "→\n") for caption in captions]
    grid_width = PAGE_WIDTH - 2 * EDGE + GAP
    columns = max(1, int(grid_width / (max(MIN_COLUMN_WIDTH, _text_width(captions)) + GAP)))
    column_width = grid_width / columns
    height, width, _ = images[0].shape if images else (1, 1, 3)
    pixel = min((column_width - GAP) / width, MAX_IMAGE_HEIGHT / height)
    num_lines = max((1 + caption.count("\n") for caption in captions), default=0)
    row_height = pixel * height + LINE_HEIGHT * num_lines + SPACE

    with figure_style():
        page = Page(TITLE_HEIGHT + row_height * -(-len(images) // columns))
        page.title(title, subtitle, left=EDGE)
        for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
            left, top = EDGE + (i % columns) * column_width, TITLE_HEIGHT + (i // columns) * row_height
            axes = page.axes("image", left=left, top=top, width=pixel * width, height=pixel * height)
            show_image(axes, image)
            page.text(caption, left=left, top=top + pixel * height + 0.03, va="top", fontsize=TEXT_SIZE)
    return page.figure


def _text_width(texts: Sequence[str]) -> float:
    """Return the approximate width of the longest line in inches."""
    return CHAR_WIDTH * max((len(line) for text in texts for line in text.split("\n")), default=0)
