from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation

from zoo.plotting._style import LINE_COLOR, SMALL_SIZE, TEXT_COLOR, show_image

PROBABILITY_CMAP = LinearSegmentedColormap.from_list("probabilities", ["#eff2f5", "#9ec5e8", "#2f7fc1", "#0b3d75"])
DIMMED = 0.62  # brightness of an image under its fixations
HIDDEN_COLOR = "#566579"  # of pixels that no glimpse has covered; neither black nor white
HIDDEN_ALPHA = 0.25  # opacity of the image at these pixels
NUMBERS_HEIGHT = 0.2  # inches: numbers of the glimpses below the class probabilities


def glimpse_colors(steps: int) -> list[str]:
    """Return a color for each glimpse, purple to yellow: the part of plasma that is visible on black and white."""
    return [to_hex(color) for color in colormaps["plasma"](np.linspace(0.38, 0.92, steps))]


def draw_fixations(
    axes: Axes,
    image: Float[np.ndarray, "height width 3"],
    centers: Float[np.ndarray, "shown 2"],
    patch_sizes: Sequence[int | float],
    steps: int,
) -> None:
    """Draw the square of each glimpse on the dimmed image, and lines between their centers.

    ``patch_sizes`` are in ascending order. The finest square is drawn for each glimpse, the others for the last one.
    """
    show_image(axes, DIMMED * image)
    colors = glimpse_colors(steps)[: len(centers)]
    finest, *coarser = patch_sizes
    for center, color in zip(centers, colors, strict=True):
        axes.add_patch(square(center, finest, edgecolor=color, linewidth=1.4, clip_on=False))
    for side in coarser:
        axes.add_patch(square(centers[-1], side, edgecolor=colors[-1], linewidth=0.9, linestyle="--"))
    for start, end, color in zip(centers[:-1], centers[1:], colors[1:], strict=True):
        axes.plot([start[1], end[1]], [start[0], end[0]], color=color, linewidth=1.2, clip_on=False)
    _draw_numbered_markers(axes, centers[:, ::-1], steps)


def square(center: Float[np.ndarray, " 2"], side: int | float, **style: Any) -> Rectangle:
    row, column = center
    return Rectangle((column - side / 2, row - side / 2), side, side, fill=False, **style)


def _draw_numbered_markers(axes: Axes, places: Float[np.ndarray, "shown 2"], steps: int, **style: Any) -> None:
    """Draw a numbered marker at each (x, y) in its glimpse's color; the first, random one is hollow."""
    colors = glimpse_colors(steps)[: len(places)]
    for t, ((x, y), color) in enumerate(zip(places, colors, strict=True)):
        fill, edge, width = ("white", color, 1.2) if t == 0 else (color, TEXT_COLOR, 0.7)
        axes.plot(x, y, "o", ms=8.5, mfc=fill, mec=edge, mew=width, clip_on=False, **style)
        axes.text(x, y, str(t + 1), fontsize=5.8, fontweight="bold", ha="center", va="center_baseline", **style)


def draw_revealed(
    axes: Axes, image: Float[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> None:
    """Draw the image where the mask is true, and elsewhere a faint version of it."""
    hidden = (1 - HIDDEN_ALPHA) * np.array(to_rgb(HIDDEN_COLOR)) + HIDDEN_ALPHA * image
    show_image(axes, np.where(mask[..., None], image, hidden))


def draw_class_probabilities(
    axes: Axes, probabilities: Float[np.ndarray, "shown classes"], steps: int, label: int, classes: tuple[str, ...]
) -> None:
    """Draw a row per class and a numbered column per glimpse.

    A dot marks the most probable class after each glimpse, a pointer the true one.
    """
    shown, num_classes = probabilities.shape
    columns = np.arange(shown) + 0.5
    axes.pcolormesh(probabilities.T, cmap=PROBABILITY_CMAP, vmin=0, vmax=1, edgecolor="white", linewidth=0.8)
    axes.plot(columns, probabilities.argmax(axis=1) + 0.5, "o", color="white", markersize=2.2)
    below = axes.get_xaxis_transform() + ScaledTranslation(0, -NUMBERS_HEIGHT / 2, axes.figure.dpi_scale_trans)
    _draw_numbered_markers(axes, np.stack([columns, np.zeros(shown)], axis=1), steps, transform=below)
    right: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate("◂", xy=(1, label + 0.5), xytext=(1, 0), va="center", **right)
    axes.set(xlim=(0, steps), ylim=(num_classes, 0), xticks=[])
    axes.set_yticks(np.arange(num_classes) + 0.5, classes, fontsize=SMALL_SIZE)
    axes.get_yticklabels()[label].set(color=TEXT_COLOR, fontweight="bold")
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set(visible=True, color=LINE_COLOR)
