from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.patches import Rectangle

from zoo.plotting._style import LINE_COLOR, SMALL_SIZE, TEXT_COLOR, show_image

PROBABILITY_CMAP = LinearSegmentedColormap.from_list("probabilities", ["#eff2f5", "#9ec5e8", "#2f7fc1", "#0b3d75"])
DIMMED = 0.62  # brightness of an image under its fixations
HIDDEN_COLOR = "#566579"  # of pixels that no glimpse has covered; neither black nor white
HIDDEN_ALPHA = 0.25  # visibility of the image there


def glimpse_colors(steps: int) -> list[str]:
    """Return a color for each glimpse, purple to yellow: the part of plasma that is visible on black and white."""
    return [to_hex(color) for color in colormaps["plasma"](np.linspace(0.38, 0.92, steps))]


def draw_fixations(
    axes: Axes,
    image: Float[np.ndarray, "height width 3"],
    centers: Float[np.ndarray, "shown 2"],
    patch_sizes: tuple[float, ...],
    steps: int,
) -> None:
    """Draw the finest square of each glimpse on the dimmed image, connected by lines; of the last one all squares."""
    show_image(axes, DIMMED * image)
    colors = glimpse_colors(steps)[: len(centers)]
    for center, color in zip(centers, colors, strict=True):
        axes.add_patch(_square(center, min(patch_sizes), edgecolor=color, linewidth=1.4, clip_on=False))
    for side in sorted(patch_sizes)[1:]:
        axes.add_patch(_square(centers[-1], side, edgecolor=colors[-1], linewidth=0.9, linestyle="--"))
    for start, end, color in zip(centers[:-1], centers[1:], colors[1:], strict=True):
        axes.plot([start[1], end[1]], [start[0], end[0]], color=color, linewidth=1.2, clip_on=False)
    _draw_numbered_markers(axes, centers[:, ::-1], steps)


def _square(center: Float[np.ndarray, " 2"], side: int | float, **style: Any) -> Rectangle:
    row, column = center
    return Rectangle((column - side / 2, row - side / 2), side, side, fill=False, **style)


def _draw_numbered_markers(axes: Axes, places: Float[np.ndarray, "shown 2"], steps: int) -> None:
    """Draw a numbered marker at each (x, y) in its glimpse's color; the first, random one is hollow."""
    colors = glimpse_colors(steps)[: len(places)]
    for t, ((x, y), color) in enumerate(zip(places, colors, strict=True)):
        fill, edge, width = ("white", color, 1.2) if t == 0 else (color, TEXT_COLOR, 0.7)
        axes.plot(x, y, "o", ms=8.5, mfc=fill, mec=edge, mew=width, clip_on=False)
        axes.text(x, y, str(t + 1), fontsize=5.8, fontweight="bold", ha="center", va="center_baseline")


def draw_glimpse_numbers(axes: Axes, shown: int, steps: int) -> None:
    """Draw the glimpse numbers below the panel whose columns they label."""
    axes.set(xlim=(0, steps), ylim=(0, 1))
    axes.set_axis_off()
    _draw_numbered_markers(axes, np.stack([np.arange(shown) + 0.5, np.full(shown, 0.5)], axis=1), steps)


def draw_revealed(
    axes: Axes, image: Float[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> None:
    """Draw the image where the mask is true, and elsewhere a faint version of it."""
    hidden = (1 - HIDDEN_ALPHA) * np.array(to_rgb(HIDDEN_COLOR)) + HIDDEN_ALPHA * image
    show_image(axes, np.where(mask[..., None], image, hidden))


def draw_patches(axes: Axes, patches: Float[np.ndarray, "shown scales size size 3"], steps: int) -> None:
    """Draw the output of the glimpse sensor: a column per glimpse, a row per scale."""
    for t, (column, color) in enumerate(zip(patches, glimpse_colors(steps), strict=False)):
        for s, patch in enumerate(column):
            left, right, top, bottom = t + 0.05, t + 0.95, s + 0.05, s + 0.95
            axes.imshow(patch, interpolation="nearest", aspect="auto", extent=(left, right, bottom, top))
            axes.add_patch(Rectangle((left, top), 0.9, 0.9, fill=False, edgecolor=color, linewidth=1.2))
    axes.set(xlim=(0, steps), ylim=(patches.shape[1], 0))
    axes.set_axis_off()


def draw_class_probabilities(
    axes: Axes, probabilities: Float[np.ndarray, "shown classes"], steps: int, label: int, classes: tuple[str, ...]
) -> None:
    """Draw a row per class, a column per glimpse, a dot at the most probable class and a pointer at the true one."""
    shown, n_classes = probabilities.shape
    axes.pcolormesh(probabilities.T, cmap=PROBABILITY_CMAP, vmin=0, vmax=1, edgecolor="white", linewidth=0.8)
    axes.plot(np.arange(shown) + 0.5, probabilities.argmax(axis=1) + 0.5, "o", color="white", markersize=2.2)
    right: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate("◂", xy=(1, label + 0.5), xytext=(1, 0), va="center", **right)
    axes.set(xlim=(0, steps), ylim=(n_classes, 0), xticks=[])
    axes.set_yticks(np.arange(n_classes) + 0.5, classes, fontsize=SMALL_SIZE)
    axes.get_yticklabels()[label].set(color=TEXT_COLOR, fontweight="bold")
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set(visible=True, color=LINE_COLOR)
