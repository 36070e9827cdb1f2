from collections.abc import Mapping

from matplotlib.figure import Figure

from zoo.plotting.checks import Array, Shapes
from zoo.plotting.panels import show_image
from zoo.plotting.style import HEADING, WIDTH, Sheet, house_style

EDGE, GAP, TITLE = 0.06, 0.05, 0.32  # inches: beside the pictures, between two of them, above a group
COLUMNS = 16


def picture_sheet(groups: Mapping[str, Array]) -> Figure:
    """Show groups of pictures below each other, each under its heading, the first of one above the first of the next.

    Args:
        groups: (N, C, H, W) between 0 and 1 for each heading; C is 1 (grey) or 3 (RGB), all pictures equally large.

    Raises:
        ValueError: an array has the wrong shape or values outside its range; the sentence names it.

    Example:
        >>> import torch
        >>> figure = picture_sheet({"given": torch.rand(3, 1, 8, 8), "reconstructed": torch.rand(3, 1, 8, 8)})
        >>> [text.get_text() for text in figure.texts]
        ['given', 'reconstructed']
    """
    shapes = Shapes()
    shown = {
        heading: shapes.pictures(heading, images, f"N{number} C H W")
        for number, (heading, images) in enumerate(groups.items())
    }
    column = (WIDTH - 2 * EDGE + GAP) / COLUMNS
    width = column - GAP
    height = width * max(len(images[0]) / len(images[0][0]) for images in shown.values())
    rows = {heading: -(-len(images) // COLUMNS) for heading, images in shown.items()}
    with house_style():
        sheet = Sheet(EDGE + sum(TITLE + count * (height + GAP) for count in rows.values()))
        top = 0.0
        for heading, images in shown.items():
            sheet.text(heading, left=EDGE, top=top + TITLE - 0.1, fontsize=HEADING, fontweight="bold")
            top += TITLE
            for i, image in enumerate(images):
                row, place = divmod(i, COLUMNS)
                axes = sheet.axes(
                    heading, left=EDGE + place * column, top=top + row * (height + GAP), width=width, height=height
                )
                show_image(axes, image)
            top += rows[heading] * (height + GAP)
    return sheet.figure
