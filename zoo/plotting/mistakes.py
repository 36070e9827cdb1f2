from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from zoo.plotting.checks import Array, Shapes
from zoo.plotting.panels import show_image
from zoo.plotting.style import LETTER, TEXT, TITLE, WIDTH, Sheet, house_style, percent

# All in inches.
EDGE, GAP = 0.06, 0.12  # beside the pictures, between two of them
LINE, SPACE = 0.13, 0.13  # a line of a caption, the room below it
NARROWEST, TALLEST = 0.9, 1.3  # of a picture


def mistakes(
    images: Array,
    labels: Array,
    predicted: Array,
    probabilities: Array,
    classes: Sequence[str],
    most: int = 40,
    total: int | None = None,
) -> Figure:
    """Show the pictures a classifier got wrong, the most confident mistake first: "4 → 9 (97 %)".

    Args:
        images: (N, C, H, W) between 0 and 1; C is 1 (grey) or 3 (RGB). Those classified rightly may be among
            them: they are left out.
        labels: (N,), the true classes, from 0 to K - 1.
        predicted: (N,), the classes they were taken for.
        probabilities: (N, K), of each class; a mistake is as confident as its predicted class is probable.
        classes: their K names.
        most: how many mistakes to show; the title counts them all.
        total: how many pictures were classified, if the arrays hold only some of them: all mistakes must be
            among these, and N may be 0 if there were none. Otherwise it is N.

    Raises:
        ValueError: an argument has the wrong shape or values outside its range; the sentence names it.

    Example:
        >>> import torch
        >>> labels, predicted = torch.tensor([4, 7, 1]), torch.tensor([9, 7, 1])
        >>> images, beliefs = torch.rand(3, 1, 28, 28), torch.full((3, 10), 0.1)
        >>> mistakes(images, labels, predicted, beliefs, "0123456789").texts[0].get_text()
        '1 mistake in 3'
    """
    if most < 1:
        raise ValueError(f"most must be at least 1, got {most}")
    total = len(images) if total is None else total
    if total < len(images):
        raise ValueError(f"total must be at least the number of images, {len(images)}, got {total}")
    if total > 0 and len(images) == 0:
        return gallery([], [], *heading(0, 0, total))

    shapes = Shapes()
    pictures = shapes.pictures("images", images, "N C H W")
    beliefs = shapes.unit("probabilities", probabilities, "N K")
    truths = shapes.class_indices("labels", labels, "N")
    guesses = shapes.class_indices("predicted", predicted, "N")
    names = shapes.class_names("classes", classes)

    confidence = beliefs[np.arange(len(beliefs)), guesses]
    worst_first = np.argsort(-confidence, kind="stable")
    wrong = worst_first[(truths != guesses)[worst_first]]
    shown = wrong[:most]
    captions = [f"{names[truths[i]]} → {names[guesses[i]]} ({percent(confidence[i])})" for i in shown]
    return gallery(list(pictures[shown]), captions, *heading(len(shown), len(wrong), total))


def heading(shown: int, count: int, total: int) -> tuple[str, str]:
    """Write the title and the subtitle."""
    if count == 0:
        return f"No mistakes in {total:,}", "every picture was given its true class"
    title = f"{count:,} mistake{'s' if count > 1 else ''} in {total:,}"
    order = "most confident first" if shown == count else f"the {shown:,} most confident"
    return title, f"true class → predicted class (its probability), {order}"


def gallery(
    pictures: Sequence[Float[np.ndarray, "height width 3"]],
    captions: Sequence[str],
    title: str,
    subtitle: str,
) -> Figure:
    """Place the pictures side by side, each with its caption below, in as many columns as stay readable."""
    if text_width(captions) > NARROWEST:
        captions = [caption.replace("→ ", "→\n") for caption in captions]
    page = WIDTH - 2 * EDGE + GAP
    columns = max(1, int(page / (max(NARROWEST, text_width(captions)) + GAP)))
    column = page / columns
    height, width, _ = pictures[0].shape if pictures else (1, 1, 3)
    pixel = min((column - GAP) / width, TALLEST / height)
    row = pixel * height + LINE * max((1 + caption.count("\n") for caption in captions), default=0) + SPACE

    with house_style():
        sheet = Sheet(TITLE + row * -(-len(pictures) // columns))
        sheet.title(title, subtitle, left=EDGE)
        for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            left, top = EDGE + (i % columns) * column, TITLE + (i // columns) * row
            axes = sheet.axes("picture", left=left, top=top, width=pixel * width, height=pixel * height)
            show_image(axes, picture)
            sheet.text(caption, left=left, top=top + pixel * height + 0.03, va="top", fontsize=TEXT)
    return sheet.figure


def text_width(texts: Sequence[str]) -> float:
    """Estimate the width of the widest line, in inches."""
    return LETTER * max((len(line) for text in texts for line in text.split("\n")), default=0)
