from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from zoo.plotting._layout import GlimpseData, Layout, make_layout
from zoo.plotting._panels import (
    PROBABILITY_CMAP,
    draw_class_probabilities,
    draw_fixations,
    draw_glimpse_numbers,
    draw_patches,
    draw_revealed,
    glimpse_colors,
)
from zoo.plotting._style import (
    CORRECT_COLOR,
    ERROR_COLOR,
    MUTED_COLOR,
    TEXT_COLOR,
    TEXT_SIZE,
    TITLE_SIZE,
    Page,
    figure_style,
    format_percent,
)

TITLES_HEIGHT, LEGEND_HEIGHT = 0.24, 0.26  # inches


def draw_summary_cards(data: GlimpseData, num_shown: int) -> Figure:
    """Return a figure with a card for each image and its first ``num_shown`` glimpses.

    The layout does not depend on ``num_shown``.
    """
    layout = make_layout(data)
    _, last_top = layout.corner(len(data.images) - 1)
    with figure_style():
        page = Page(TITLES_HEIGHT + last_top + layout.card[1] + LEGEND_HEIGHT)
        _draw_titles(page, layout, data)
        for i in range(len(data.images)):
            _draw_card(page, layout, data, i, num_shown)
        draw_legend(page.figure, data.patch_sizes)
    return page.figure


def _draw_titles(page: Page, layout: Layout, data: GlimpseData) -> None:
    """Write the titles of the panels above each column of cards."""
    titles = {
        "fixations": "where it looked",
        "revealed": "what it has seen" if len(data.patch_sizes) == 1 else "seen in full detail",
        "patches": "what each glimpse passed on",
        "class_probabilities": "what it believed",
    }
    for column in range(min(layout.columns, len(data.images))):
        left, _ = layout.corner(column)
        for panel, title in titles.items():
            if panel in layout.panels:
                x = left + layout.panels[panel][0]
                page.text(title, left=x, top=0.16, fontsize=TEXT_SIZE, color=MUTED_COLOR)


def _draw_card(page: Page, layout: Layout, data: GlimpseData, i: int, num_shown: int) -> None:
    """Draw the predicted class and the panels of image ``i``."""
    left, top = layout.corner(i)
    axes = {
        name: page.axes(name, left=left + x, top=TITLES_HEIGHT + top + y, width=width, height=height)
        for name, (x, y, width, height) in layout.panels.items()
    }
    text, color = prediction_heading(data, i, num_shown)
    style = {"fontsize": TITLE_SIZE, "fontweight": "bold", "color": color}
    page.text(text, left=left + layout.panels["fixations"][0], top=TITLES_HEIGHT + top + 0.13, **style)

    image, centers, steps = data.images[i], data.centers[i, :num_shown], data.num_glimpses
    draw_fixations(axes["fixations"], image, centers, data.patch_sizes, steps)
    draw_revealed(axes["revealed"], image, covered_pixels(image.shape[:2], centers, min(data.patch_sizes)))
    draw_class_probabilities(
        axes["class_probabilities"], data.probabilities[i, :num_shown], steps, int(data.labels[i]), data.classes
    )
    draw_glimpse_numbers(axes["class_probabilities numbers"], num_shown, steps)
    if data.patches is not None:
        draw_patches(axes["patches"], data.patches[i, :num_shown], steps)
        draw_glimpse_numbers(axes["patches numbers"], num_shown, steps)


def prediction_heading(data: GlimpseData, i: int, num_shown: int) -> tuple[str, str]:
    """Return text and color for the most probable class so far; after the last glimpse, whether it is correct."""
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
    # Of two opposite edges the upper or left one counts as inside: a side of g pixels always covers g rows.
    rows, columns = (
        (center[:, None] - side / 2 <= np.arange(length)) & (np.arange(length) < center[:, None] + side / 2)
        for center, length in zip(centers.T, size, strict=True)
    )
    return (rows[:, :, None] & columns[:, None, :]).any(axis=0)


def draw_legend(figure: Figure, patch_sizes: tuple[float, ...]) -> None:
    """Draw the legend of all cards in one line at the bottom of the figure."""
    start, chosen, later, *_ = glimpse_colors(4)
    markers = (_marker("o", 8, chosen, TEXT_COLOR), _marker("o", 8, later, TEXT_COLOR))
    ramp = tuple(_marker("s", 6, PROBABILITY_CMAP(probability)) for probability in (0.0, 0.3, 0.6, 1.0))
    pixels = ", ".join(f"{size:g}" for size in sorted(patch_sizes))
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
