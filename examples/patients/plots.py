from collections.abc import Mapping
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter, StrMethodFormatter, SymmetricalLogLocator

from zoo.plotting._style import COLORS, LINE_STYLES, PAGE_WIDTH, TITLE_HEIGHT, Page, figure_style
from zoo.plotting._validation import Array, check_points

HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 3.5, 0.65, TITLE_HEIGHT, 0.15, 0.5  # inches: figure; margins around the axes


class Progress(NamedTuple):
    """Predictive accuracy of a method by training time."""

    seconds: Array
    """``(P,)``, positive."""
    per_lab: Array
    """Log-likelihood per held-out lab ``(P,)``, in nats."""
    warm_up: float = 0.0
    """Seconds of a chain's warm-up."""


def prediction_curves(methods: Mapping[str, Progress]) -> Figure:
    """Return a figure of the log-likelihood of held-out labs by training time; the warm-up of a chain is faint.

    Both axes are logarithmic; that of the log-likelihood is linear between -1 and 1 nat.

    Args:
        methods: progress of each method, by name.

    Raises:
        ValueError: there is no method, or the values of one are invalid; the message names it.

    Example:
        >>> fast = Progress(np.array([1.0, 10.0]), np.array([-9.0, -2.0]))
        >>> prediction_curves({"fast": fast}).axes[0].get_xscale()
        'log'
    """
    if not methods:
        raise ValueError("methods is empty: there is no curve to draw")
    curves = {name: _check(name, progress) for name, progress in methods.items()}
    with figure_style():
        page = Page(HEIGHT)
        size = {"width": PAGE_WIDTH - LEFT - RIGHT, "height": HEIGHT - TOP - BOTTOM}
        axes = page.axes("predictions", left=LEFT, top=TOP, **size)
        for (name, (x, y, warm_up)), color, dash in zip(
            curves.items(), cycle(COLORS), cycle(LINE_STYLES), strict=False
        ):
            adapting = x <= warm_up
            later = ~adapting
            later[max(adapting.sum() - 1, 0)] = True  # the line continues where the faint one ends
            axes.plot(x[adapting], y[adapting], dash, color=color, linewidth=1.6, alpha=0.35)
            axes.plot(x[later], y[later], dash, color=color, linewidth=1.6, label=name)
            axes.plot(x[-1:], y[-1:], "o", color=color, markersize=3.5)
        # The first values are hundreds of nats lower; the last ones differ by tenths.
        axes.set_yscale("symlog", linthresh=1)
        axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(xscale="log", xlabel="seconds", ylabel="log-likelihood per held-out lab, nats")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(curves))
        adapted = any(warm_up > 0 for _, _, warm_up in curves.values())
        page.title("Prediction of held-out labs", "faint: the chain's warm-up" if adapted else "", left=LEFT)
    return page.figure


def _check(name: str, progress: Progress) -> tuple[np.ndarray, np.ndarray, float]:
    x, y = check_points(repr(name), progress.seconds, progress.per_lab)
    if x.min() <= 0:
        raise ValueError(f"the seconds of {name!r} must be positive on a logarithmic axis, but start at {x.min():g}")
    return x, y, progress.warm_up
