import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from zoo.plotting._style import ERROR_COLOR, PAGE_WIDTH, TEXT_SIZE, TITLE_SIZE, Page, figure_style, show_image
from zoo.plotting._validation import Array, ArrayValidator

# All in inches.
EDGE, GAP = 0.06, 0.08  # beside the panels, between two of them
HEADING, WORD_HEIGHT = 0.3, 0.2  # above an image's panels, above a panel
COLUMNS = 8
DIMMED = 0.35  # brightness of a cell without probability


def caption_attention(
    images: Array,
    words: Sequence[Sequence[str]],
    probabilities: Array,
    cells: Array,
    headings: Sequence[str] | None = None,
) -> Figure:
    """Return a figure of captioned images, word by word: the brighter a cell, the more likely it was attended to.

    A frame marks the cell that the model attended to.

    Args:
        images: (N, 3, H, W) between 0 and 1.
        words: words of each caption.
        probabilities: (N, T, K) of the K cells of a square grid, row by row, at each of T words; those past the end of
            a caption are ignored.
        cells: (N, T), index of the cell at each word.
        headings: line above each image; None for its caption.

    Raises:
        ValueError: an argument has the wrong shape or values outside its range; the message names it.

    Example:
        >>> import torch
        >>> words, probabilities = [["a", "dog"]], torch.full((1, 2, 4), 0.25)
        >>> figure = caption_attention(torch.rand(1, 3, 8, 8), words, probabilities, torch.zeros(1, 2).long())
        >>> [text.get_text() for text in figure.texts]
        ['a dog', 'a', 'dog']
    """
    validator = ArrayValidator()
    rgb = validator.images("images", images, "N C H W")
    attention = validator.unit("probabilities", probabilities, "N T K")
    chosen = validator.class_indices("cells", cells, "N T")
    side = math.isqrt(attention.shape[-1])
    if side**2 != attention.shape[-1]:
        raise ValueError(f"probabilities must be of the cells of a square grid, got {attention.shape[-1]} cells")
    headings = [" ".join(caption) for caption in words] if headings is None else headings

    panel = (PAGE_WIDTH - 2 * EDGE + GAP) / COLUMNS
    rows = [-(-(len(caption) + 1) // COLUMNS) for caption in words]
    with figure_style():
        page = Page(sum(HEADING + count * (panel + WORD_HEIGHT) for count in rows))
        top = 0.0
        for i, caption in enumerate(words):
            page.text(headings[i], left=EDGE, top=top + HEADING - 0.1, fontsize=TITLE_SIZE, fontweight="bold")
            for position in range(len(caption) + 1):
                left = EDGE + position % COLUMNS * panel
                panel_top = top + HEADING + position // COLUMNS * (panel + WORD_HEIGHT) + WORD_HEIGHT
                axes = page.axes("image", left=left, top=panel_top, width=panel - GAP, height=panel - GAP)
                if position == 0:
                    show_image(axes, rgb[i])
                    continue
                word = position - 1
                page.text(caption[word], left=left, top=panel_top - 0.05, fontsize=TEXT_SIZE)
                _draw_attention(axes, rgb[i], attention[i, word].reshape(side, side), int(chosen[i, word]))
            top += HEADING + rows[i] * (panel + WORD_HEIGHT)
    return page.figure


def _draw_attention(
    axes: Axes, image: Float[np.ndarray, "height width 3"], attention: Float[np.ndarray, "side side"], cell: int
) -> None:
    """Draw the image with each cell as bright as it is likely, and a frame around one cell."""
    height, width, _ = image.shape
    side = len(attention)
    rows, columns = (np.arange(size) * side // size for size in (height, width))
    brightness = DIMMED + (1 - DIMMED) * attention / max(attention.max(), 1e-12)
    show_image(axes, image * brightness[np.ix_(rows, columns)][..., None])
    row, column = divmod(cell, side)
    corner = (column * width / side - 0.5, row * height / side - 0.5)
    axes.add_patch(Rectangle(corner, width / side, height / side, fill=False, edgecolor=ERROR_COLOR, linewidth=1.4))
