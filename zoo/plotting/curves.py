from collections.abc import Mapping
from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from zoo.plotting.checks import Array, Shapes
from zoo.plotting.style import WIDTH, Sheet, house_style

HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 3.4, 0.65, 0.32, 0.15, 0.5  # inches: all of it, and around the axes
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")  # Okabe and Ito, 2008
DASHES = ("-", "--", "-.", ":")  # so that colour alone never tells one line from another


def learning_curves(series: Mapping[str, tuple[Array, Array]], xlabel: str, ylabel: str, log: bool = False) -> Figure:
    """Draw lines by name, such as the validation error of several runs by epoch.

    Args:
        series: for each name x and y, both (P,) with P at least 1.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        log: whether the y axis is logarithmic; y must then be positive.

    Raises:
        ValueError: there is no series, or x and y of one do not fit together or cannot be drawn; the sentence
            names it.

    Example:
        >>> epochs, error = np.arange(1, 4), np.array([0.2, 0.1, 0.05])
        >>> figure = learning_curves({"run 1": (epochs, error)}, "epoch", "validation error", log=True)
        >>> figure.axes[0].get_yscale()
        'log'
    """
    if not series:
        raise ValueError("series is empty: there is no curve to draw")
    curves = {name: checked_curve(name, x, y, log) for name, (x, y) in series.items()}
    with house_style():
        sheet = Sheet(HEIGHT)
        size = {"width": WIDTH - LEFT - RIGHT, "height": HEIGHT - TOP - BOTTOM}
        axes = sheet.axes("curves", left=LEFT, top=TOP, **size)
        for (name, (x, y)), colour, dash in zip(curves.items(), cycle(COLOURS), cycle(DASHES), strict=False):
            # A line through a single point would be invisible.
            axes.plot(x, y, "o" if len(x) == 1 else dash, color=colour, linewidth=1.6, label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        sheet.title(f"{ylabel[:1].upper()}{ylabel[1:]} by {xlabel}", left=LEFT)
        axes.grid(axis="y")
        axes.legend()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no epoch 1.5
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
    return sheet.figure


def checked_curve(name: str, x: Array, y: Array, log: bool) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Return the points of one line as numbers that can be drawn.

    Raises:
        ValueError: x and y differ in length, are empty or not finite, or y is not positive where it must be.
    """
    shapes = Shapes()
    xs, ys = shapes.real(f"x of {name!r}", x, "P"), shapes.real(f"y of {name!r}", y, "P")
    if log and ys.min() <= 0:
        raise ValueError(f"y of {name!r} must be positive on a logarithmic axis, but reaches {ys.min():g}")
    return xs, ys
