from collections.abc import Mapping
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from zoo.plotting._style import COLORS, LINE_STYLES, PAGE_WIDTH, Page, figure_style
from zoo.plotting._validation import Array, check_points

HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 3.4, 0.65, 0.32, 0.15, 0.5  # inches: figure; margins around the axes


def learning_curves(series: Mapping[str, tuple[Array, Array]], xlabel: str, ylabel: str, log: bool = False) -> Figure:
    """Return a figure with one line per name, such as the validation error of several runs by epoch.

    Args:
        series: x and y of each name, both (P,) with P at least 1.
        xlabel: label of the x axis, with its unit.
        ylabel: label of the y axis, with its unit.
        log: whether the y axis is logarithmic; y must then be positive.

    Raises:
        ValueError: there is no series, or x and y of one differ in length or are not finite; the message names it.

    Example:
        >>> import numpy as np
        >>> series = {"run 1": (np.arange(1, 4), np.array([0.2, 0.1, 0.05]))}
        >>> figure = learning_curves(series, "epoch", "validation error", log=True)
        >>> figure.axes[0].get_yscale()
        'log'
    """
    if not series:
        raise ValueError("series is empty: there are no curves to draw")
    curves = {name: check_points(repr(name), x, y) for name, (x, y) in series.items()}
    for name, (_, y) in curves.items():
        if log and y.min() <= 0:
            raise ValueError(f"y of {name!r} must be positive on a logarithmic axis, but reaches {y.min():g}")
    with figure_style():
        page = Page(HEIGHT)
        size = {"width": PAGE_WIDTH - LEFT - RIGHT, "height": HEIGHT - TOP - BOTTOM}
        axes = page.axes("curves", left=LEFT, top=TOP, **size)
        for (name, (x, y)), color, style in zip(curves.items(), cycle(COLORS), cycle(LINE_STYLES), strict=False):
            # A line through a single point would be invisible.
            axes.plot(x, y, "o" if len(x) == 1 else style, color=color, linewidth=1.6, label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        page.title(f"{ylabel[:1].upper()}{ylabel[1:]} by {xlabel}", left=LEFT)
        axes.grid(axis="y")
        axes.legend()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no epoch 1.5
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
    return page.figure
