from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from zoo.plotting._style import PAGE_WIDTH, TITLE_SIZE, Page, figure_style, show_image
from zoo.plotting._validation import Array, ArrayValidator

EDGE, HEADING = 0.06, 0.32  # inches: beside the images, above a group
COLUMNS = 16


def image_grid(groups: Mapping[str, Array]) -> Figure:
    """Return a figure of groups of images, each group in rows below its heading.

    Args:
        groups: by heading, images (N, C, H, W) between 0 and 1, all of the same size; C is 1 (gray) or 3 (RGB).

    Raises:
        ValueError: an array has the wrong shape or values outside its range; the message names it.

    Example:
        >>> import torch
        >>> figure = image_grid({"given": torch.rand(3, 1, 8, 8), "reconstructed": torch.rand(3, 1, 8, 8)})
        >>> [text.get_text() for text in figure.texts]
        ['given', 'reconstructed']
    """
    validator = ArrayValidator()
    grids = {
        heading: _tile(validator.images(heading, images, f"N{number} C H W"))
        for number, (heading, images) in enumerate(groups.items())
    }
    width = PAGE_WIDTH - 2 * EDGE
    with figure_style():
        page = Page(EDGE + sum(HEADING + width * len(grid) / len(grid[0]) for grid in grids.values()))
        top = 0.0
        for heading, grid in grids.items():
            page.text(heading, left=EDGE, top=top + HEADING - 0.1, fontsize=TITLE_SIZE, fontweight="bold")
            height = width * len(grid) / len(grid[0])
            show_image(page.axes(heading, left=EDGE, top=top + HEADING, width=width, height=height), grid)
            top += HEADING + height
    return page.figure


def _tile(images: Float[np.ndarray, "n height width 3"]) -> Float[np.ndarray, "rows columns 3"]:
    """Return images side by side, in rows of ``COLUMNS``, as one image; each has a white gap to its right and below."""
    gap = max(1, images.shape[2] // 10)
    images = np.pad(images, ((0, -len(images) % COLUMNS), (0, gap), (0, gap), (0, 0)), constant_values=1)
    _, height, width, _ = images.shape
    return images.reshape(-1, COLUMNS, height, width, 3).swapaxes(1, 2).reshape(-1, COLUMNS * width, 3)
