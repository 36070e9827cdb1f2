from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.patches import Rectangle

from zoo.plotting.style import INK, RULE, SMALL

BELIEF = LinearSegmentedColormap.from_list("belief", ["#eff2f5", "#9ec5e8", "#2f7fc1", "#0b3d75"])
DIM = 0.62  # brightness of a picture under its path, so that the path stands out
FOG = "#566579"  # between black and white: both show as seen
GHOST = 0.25  # how much of a pixel shines through where the model has not looked


def time_colours(steps: int) -> list[str]:
    """Choose a colour for each glimpse, purple to yellow: the part of plasma seen well on black and white."""
    return [to_hex(colour) for colour in colormaps["plasma"](np.linspace(0.38, 0.92, steps))]


def draw_path(
    axes: Axes,
    image: Float[np.ndarray, "height width 3"],
    centres: Float[np.ndarray, "shown 2"],
    sides: tuple[float, ...],
    steps: int,
) -> None:
    """Draw the dimmed picture, and on it the finest square of each glimpse and the way from one to the next.

    Of the coarser squares only the latest glimpse's are drawn: those of all would hide the picture.

    Args:
        axes: the picture fills them; finest squares and numbers may stick out.
        image: its pixel centres come to lie at whole numbers.
        centres: row and column of the glimpses so far.
        sides: of the squares around each centre, in pixels.
        steps: glimpses there will be in the end.
    """
    show_image(axes, DIM * image)
    colours = time_colours(steps)[: len(centres)]
    for centre, colour in zip(centres, colours, strict=True):
        axes.add_patch(square(centre, min(sides), edgecolor=colour, linewidth=1.4, clip_on=False))
    for side in sorted(sides)[1:]:
        axes.add_patch(square(centres[-1], side, edgecolor=colours[-1], linewidth=0.9, linestyle="--"))
    for start, end, colour in zip(centres[:-1], centres[1:], colours[1:], strict=True):
        axes.plot([start[1], end[1]], [start[0], end[0]], color=colour, linewidth=1.2, clip_on=False)
    draw_numbers(axes, centres[:, ::-1], steps)


def square(centre: Float[np.ndarray, " 2"], side: int | float, **look: Any) -> Rectangle:
    """Outline a glimpse, in matplotlib's coordinates.

    Example:
        >>> square(np.array([10.0, 20.0]), 8).get_bbox().extents
        array([16.,  6., 24., 14.])
    """
    row, column = centre
    return Rectangle((column - side / 2, row - side / 2), side, side, fill=False, **look)


def draw_numbers(axes: Axes, places: Float[np.ndarray, "shown 2"], steps: int) -> None:
    """Draw a numbered disc at each (x, y) in its glimpse's colour; the first is hollow, as it was random."""
    colours = time_colours(steps)[: len(places)]
    for t, ((x, y), colour) in enumerate(zip(places, colours, strict=True)):
        fill, edge, width = ("white", colour, 1.2) if t == 0 else (colour, INK, 0.7)
        axes.plot(x, y, "o", ms=8.5, mfc=fill, mec=edge, mew=width, clip_on=False)
        look: dict[str, Any] = {
            "fontsize": 5.8,
            "fontweight": "bold",
            "ha": "center",
            "va": "center_baseline",
        }
        axes.text(x, y, str(t + 1), **look)


def draw_number_line(axes: Axes, shown: int, steps: int) -> None:
    """Write the numbers of the glimpses under the panel whose columns they are."""
    axes.set(xlim=(0, steps), ylim=(0, 1))
    axes.set_axis_off()
    draw_numbers(axes, np.stack([np.arange(shown) + 0.5, np.full(shown, 0.5)], axis=1), steps)


def draw_revealed(
    axes: Axes, image: Float[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> None:
    """Draw the picture where the mask is true, and elsewhere fog with a ghost of the picture in it."""
    fog = (1 - GHOST) * np.array(to_rgb(FOG)) + GHOST * image
    show_image(axes, np.where(mask[..., None], image, fog))


def show_image(axes: Axes, image: Float[np.ndarray, "height width 3"]) -> None:
    """Fill the axes with the picture; its pixel centres come to lie at whole numbers."""
    axes.imshow(image, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    axes.autoscale(False)


def draw_tiles(axes: Axes, tiles: Float[np.ndarray, "shown scales glimpse glimpse 3"], steps: int) -> None:
    """Draw what the sensor passed on: a column per glimpse, a row per scale."""
    for t, (column, colour) in enumerate(zip(tiles, time_colours(steps), strict=False)):
        for s, tile in enumerate(column):
            left, right, top, bottom = t + 0.05, t + 0.95, s + 0.05, s + 0.95
            axes.imshow(tile, interpolation="nearest", aspect="auto", extent=(left, right, bottom, top))
            axes.add_patch(Rectangle((left, top), 0.9, 0.9, fill=False, edgecolor=colour, linewidth=1.2))
    axes.set(xlim=(0, steps), ylim=(tiles.shape[1], 0))
    axes.set_axis_off()


def draw_beliefs(
    axes: Axes,
    probabilities: Float[np.ndarray, "shown classes"],
    steps: int,
    label: int,
    classes: tuple[str, ...],
) -> None:
    """Draw classes down and glimpses across: the darker the more probable, with a dot on the most probable.

    The true class is bold and has a pointer at its right.
    """
    shown, n_classes = probabilities.shape
    axes.pcolormesh(probabilities.T, cmap=BELIEF, vmin=0, vmax=1, edgecolor="white", linewidth=0.8)
    axes.plot(np.arange(shown) + 0.5, probabilities.argmax(axis=1) + 0.5, "o", color="white", markersize=2.2)
    axes.annotate(
        "◂",
        xy=(1, label + 0.5),
        xycoords=axes.get_yaxis_transform(),
        xytext=(1, 0),
        textcoords="offset points",
        va="center",
    )
    axes.set(xlim=(0, steps), ylim=(n_classes, 0), xticks=[])
    axes.set_yticks(np.arange(n_classes) + 0.5, classes, fontsize=SMALL)
    axes.get_yticklabels()[label].set(color=INK, fontweight="bold")
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set(visible=True, color=RULE)
