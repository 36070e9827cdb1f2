from collections.abc import Mapping

from matplotlib.figure import Figure

from zoo.plotting._style import PAGE_WIDTH, TITLE_SIZE, Page, figure_style, show_image
from zoo.plotting._validation import Array, ArrayValidator

EDGE, GAP, HEADING = 0.06, 0.05, 0.32  # inches: beside the images, between two of them, above a group
COLUMNS = 16


def image_grid(groups: Mapping[str, Array]) -> Figure:
    """Return a figure of groups of images, each group in rows below its heading.

    Args:
        groups: (N, C, H, W) between 0 and 1 for each heading, all of the same size; C is 1 (gray) or 3 (RGB).

    Raises:
        ValueError: an array has the wrong shape or values outside its range; the message names it.

    Example:
        >>> import torch
        >>> figure = image_grid({"given": torch.rand(3, 1, 8, 8), "reconstructed": torch.rand(3, 1, 8, 8)})
        >>> [text.get_text() for text in figure.texts]
        ['given', 'reconstructed']
    """
    validator = ArrayValidator()
    shown = {
        heading: validator.images(heading, images, f"N{number} C H W")
        for number, (heading, images) in enumerate(groups.items())
    }
    column = (PAGE_WIDTH - 2 * EDGE + GAP) / COLUMNS
    width = column - GAP
    height = width * max(len(images[0]) / len(images[0][0]) for images in shown.values())
    rows = {heading: -(-len(images) // COLUMNS) for heading, images in shown.items()}
    with figure_style():
        page = Page(EDGE + sum(HEADING + count * (height + GAP) for count in rows.values()))
        top = 0.0
        for heading, images in shown.items():
            page.text(heading, left=EDGE, top=top + HEADING - 0.1, fontsize=TITLE_SIZE, fontweight="bold")
            top += HEADING
            for i, image in enumerate(images):
                row, place = divmod(i, COLUMNS)
                left, y = EDGE + place * column, top + row * (height + GAP)
                show_image(page.axes(heading, left=left, top=y, width=width, height=height), image)
            top += rows[heading] * (height + GAP)
    return page.figure
