from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from zoo.plotting._panels import (
    NUMBERS_HEIGHT,
    PROBABILITY_CMAP,
    draw_class_probabilities,
    draw_fixations,
    draw_revealed,
    glimpse_colors,
)
from zoo.plotting._style import (
    CHAR_WIDTH,
    CORRECT_COLOR,
    ERROR_COLOR,
    MUTED_COLOR,
    PAGE_WIDTH,
    TEXT_COLOR,
    TEXT_SIZE,
    TITLE_SIZE,
    Page,
    figure_style,
    format_percent,
)
from zoo.plotting._validation import Array, ArrayValidator

# All lengths are in inches, unless noted otherwise.
EDGE, CARD_GAP, GAP = 0.08, 0.3, 0.14  # beside the cards, between two cards, between two panels
TITLES_HEIGHT, HEADING_HEIGHT, LEGEND_HEIGHT = 0.24, 0.22, 0.26  # above all cards, in each card, below all cards
SPACE = 0.08  # below a card
MIN_IMAGE_WIDTH, MAX_IMAGE_HEIGHT = 0.85, 1.4
MIN_COLUMN_WIDTH, USUAL_WIDTH, CLASS_HEIGHT = 0.145, 0.9, 0.1  # class probabilities: a column, the panel, a row
POINTER_WIDTH = 0.1  # to the right of the class probabilities
PROBABILITIES_TITLE_WIDTH = 0.96  # wider than the panel if there are few glimpses
MAX_NAMES_WIDTH, MAX_PROBABILITIES_WIDTH = 2.0, 3.0  # the rest is for the images


class GlimpseData:
    """Validated arguments of ``glimpse_summary``."""

    def __init__(
        self,
        images: Array,
        centers: Array,
        patch_sizes: Sequence[int | float],
        probabilities: Array,
        labels: Array,
        classes: Sequence[str],
    ) -> None:
        if not patch_sizes or not all(0 < size < np.inf for size in patch_sizes):
            raise ValueError(f"patch_sizes must be one or more positive numbers of pixels, got {tuple(patch_sizes)}")
        validator = ArrayValidator()
        self.images: Float[np.ndarray, "n height width 3"] = validator.images("images", images, "N C H W")
        self.centers: Float[np.ndarray, "n time 2"] = validator.real("centers", centers, "N T 2")
        self.patch_sizes = sorted(patch_sizes)
        self.probabilities: Float[np.ndarray, "n time classes"] = validator.unit(
            "probabilities", probabilities, "N T K"
        )
        self.labels: Int[np.ndarray, " n"] = validator.class_indices("labels", labels, "N")
        self.classes = validator.class_names("classes", classes)
        self.num_glimpses = self.centers.shape[1]

    @property
    def margin(self) -> float:
        """Distance in pixels by which the finest squares extend beyond their images."""
        last = np.array(self.images.shape[1:3]) - 1
        outside = np.maximum(-self.centers, self.centers - last).max()  # of the outermost center; negative inside
        return float(max(0.0, outside + (self.patch_sizes[0] - 1) / 2))


class Panel(NamedTuple):
    """Position of a panel on its card."""

    left: float
    top: float
    width: float
    height: float


class Layout(NamedTuple):
    """Positions of the cards on the page, one per image, and of the panels on a card."""

    columns: int
    card_width: float
    card_height: float
    panels: dict[str, Panel]

    def corner(self, i: int) -> tuple[float, float]:
        """Return left and top of card ``i`` on the page."""
        row, column = divmod(i, self.columns)
        left = (PAGE_WIDTH - self.columns * self.card_width - (self.columns - 1) * CARD_GAP) / 2
        return left + column * (self.card_width + CARD_GAP), TITLES_HEIGHT + row * self.card_height


def make_layout(data: GlimpseData) -> Layout:
    """Return a layout with two columns of cards if the images stay large enough, else with one."""
    two = _layout_with_columns(data, 2)
    large_enough = two.panels["revealed"].width >= MIN_IMAGE_WIDTH
    return two if large_enough and len(data.images) > 1 else _layout_with_columns(data, 1)


def _layout_with_columns(data: GlimpseData, columns: int) -> Layout:
    """Return the layout with this number of columns whose images are as large as possible."""
    _, height, width, _ = data.images.shape
    steps = data.num_glimpses
    names_width = GAP + min(MAX_NAMES_WIDTH, CHAR_WIDTH * max(map(len, data.classes)))
    probabilities_width = min(MAX_PROBABILITIES_WIDTH, max(MIN_COLUMN_WIDTH * steps, min(USUAL_WIDTH, 0.2 * steps)))
    card_width = (PAGE_WIDTH - 2 * EDGE - (columns - 1) * CARD_GAP) / columns
    right_width = max(probabilities_width + POINTER_WIDTH, PROBABILITIES_TITLE_WIDTH)
    available = card_width - GAP - names_width - right_width  # for two images
    pixel = min(available / (2 * width + 2 * data.margin), MAX_IMAGE_HEIGHT / height)
    image_width, image_height, margin = pixel * width, pixel * height, pixel * data.margin

    top, right = HEADING_HEIGHT + margin, 2 * image_width + 2 * margin + GAP + names_width
    probabilities_height = max(image_height, CLASS_HEIGHT * len(data.classes))
    panels = {
        "fixations": Panel(margin, top, image_width, image_height),
        "revealed": Panel(image_width + 2 * margin + GAP, top, image_width, image_height),
        "class_probabilities": Panel(right, top, probabilities_width, probabilities_height),
    }
    bottom = top + max(image_height + margin, probabilities_height + NUMBERS_HEIGHT) + SPACE
    return Layout(columns, right + right_width, bottom, panels)


def draw_summary_cards(data: GlimpseData, num_shown: int) -> Figure:
    """Return a figure with a card for each image and its first ``num_shown`` glimpses.

    The layout does not depend on ``num_shown``.
    """
    layout = make_layout(data)
    titles = {
        "fixations": "glimpses",
        "revealed": "pixels seen" if len(data.patch_sizes) == 1 else "pixels seen in full detail",
        "class_probabilities": "class probabilities",
    }
    _, last_top = layout.corner(len(data.images) - 1)
    with figure_style():
        page = Page(last_top + layout.card_height + LEGEND_HEIGHT)
        for i in range(len(data.images)):
            left, top = layout.corner(i)
            if i < layout.columns:  # the first card of a column
                for name, title in titles.items():
                    x = left + layout.panels[name].left
                    page.text(title, left=x, top=0.16, fontsize=TEXT_SIZE, color=MUTED_COLOR)
            axes = {
                name: page.axes(name, left=left + x, top=top + y, width=width, height=height)
                for name, (x, y, width, height) in layout.panels.items()
            }
            heading, color = prediction_heading(data, i, num_shown)
            style = {"fontsize": TITLE_SIZE, "fontweight": "bold", "color": color}
            page.text(heading, left=left + layout.panels["fixations"].left, top=top + 0.13, **style)
            _draw_panels(axes, data, i, num_shown)
        draw_legend(page.figure, data.patch_sizes)
    return page.figure


def _draw_panels(axes: dict[str, Axes], data: GlimpseData, i: int, num_shown: int) -> None:
    """Draw the panels of image ``i``."""
    image, centers, steps = data.images[i], data.centers[i, :num_shown], data.num_glimpses
    draw_fixations(axes["fixations"], image, centers, data.patch_sizes, steps)
    draw_revealed(axes["revealed"], image, covered_pixels(image.shape[:2], centers, data.patch_sizes[0]))
    draw_class_probabilities(
        axes["class_probabilities"], data.probabilities[i, :num_shown], steps, int(data.labels[i]), data.classes
    )


def prediction_heading(data: GlimpseData, i: int, num_shown: int) -> tuple[str, str]:
    """Return a text with the most probable class so far, and its color; after the last glimpse, it is marked ✓ or ✗."""
    probabilities = data.probabilities[i, num_shown - 1]
    best = int(probabilities.argmax())
    predicted, label = f"{data.classes[best]} ({format_percent(probabilities[best])})", data.classes[data.labels[i]]
    if num_shown < data.num_glimpses:
        return f"{predicted} …", MUTED_COLOR
    if best == data.labels[i]:
        return f"✓ {predicted}", CORRECT_COLOR
    return f"✗ {predicted}, but it is {label}", ERROR_COLOR


def covered_pixels(
    size: tuple[int, int], centers: Float[np.ndarray, "time 2"], side: int | float
) -> Bool[np.ndarray, "height width"]:
    """Return a mask of the pixels whose center lies in at least one of the squares."""
    # Pixel centers on the upper or left edge count as inside, those on the opposite edges do not: a square of g pixels
    # always covers g rows.
    rows, columns = (
        (center[:, None] - side / 2 <= np.arange(length)) & (np.arange(length) < center[:, None] + side / 2)
        for center, length in zip(centers.T, size, strict=True)
    )
    return (rows[:, :, None] & columns[:, None, :]).any(axis=0)


def draw_legend(figure: Figure, patch_sizes: Sequence[int | float]) -> None:
    """Draw the legend of all cards in one line at the bottom of the figure."""
    start, chosen, later, *_ = glimpse_colors(4)
    markers = (_marker("o", 8, chosen, TEXT_COLOR), _marker("o", 8, later, TEXT_COLOR))
    ramp = tuple(_marker("s", 6, PROBABILITY_CMAP(probability)) for probability in (0.0, 0.3, 0.6, 1.0))
    pixels = ", ".join(f"{size:g}" for size in patch_sizes)
    entries: dict[str, Any] = {
        "random start": _marker("o", 8, "white", start),
        "chosen by the model": markers,
        f"glimpse ({pixels} pixels wide)": _marker("s", 8, "none", chosen),
        "probability, 0 to 1": ramp,
        "most probable": (_marker("s", 8, PROBABILITY_CMAP(0.8)), _marker("o", 2.5, "white")),
        "true class": _marker("<", 4, TEXT_COLOR),
    }
    side_by_side = HandlerTuple(ndivide=None, pad=0)
    style: dict[str, Any] = {"loc": "lower center", "ncols": len(entries), "fontsize": TEXT_SIZE}
    style |= {"handlelength": 1.9, "handletextpad": 0.5, "columnspacing": 1.2, "borderaxespad": 0.3, "borderpad": 0}
    handlers = {markers: side_by_side, ramp: side_by_side}
    figure.legend(entries.values(), entries.keys(), handler_map=handlers, **style)


def _marker(shape: str, size: int | float, fill: ColorType, edge: ColorType = "none") -> Line2D:
    return Line2D([], [], ls="", marker=shape, ms=size, mfc=fill, mec=edge, mew=0.7 if edge == TEXT_COLOR else 1.2)
