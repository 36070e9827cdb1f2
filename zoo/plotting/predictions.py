from collections.abc import Mapping
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter, StrMethodFormatter, SymmetricalLogLocator

from zoo.plotting.checks import Array
from zoo.plotting.curves import COLOURS, DASHES, checked_curve
from zoo.plotting.style import TITLE, WIDTH, Sheet, house_style

HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 3.5, 0.65, TITLE, 0.15, 0.5  # inches: all of it, and around the axes


class Progress(NamedTuple):
    """How well a method predicted as time went by."""

    seconds: Array
    """``(P,)``, positive."""
    per_lab: Array
    """``(P,)``, in nats."""
    warm_up: float = 0.0
    """Seconds until which a chain adapted."""


def prediction_curves(methods: Mapping[str, Progress]) -> Figure:
    """Draw how well methods predicted held-out labs by the time they had, faint while a chain adapted.

    Both axes are logarithmic, that of the predictions on either side of ±1 nat.

    Args:
        methods: by name.

    Raises:
        ValueError: there is no method, or the numbers of one cannot be drawn; the sentence names it.

    Example:
        >>> fast = Progress(np.array([1.0, 10.0]), np.array([-9.0, -2.0]))
        >>> prediction_curves({"fast": fast}).axes[0].get_xscale()
        'log'
    """
    if not methods:
        raise ValueError("methods is empty: there is no curve to draw")
    curves = {name: checked(name, each) for name, each in methods.items()}
    with house_style():
        sheet = Sheet(HEIGHT)
        size = {"width": WIDTH - LEFT - RIGHT, "height": HEIGHT - TOP - BOTTOM}
        axes = sheet.axes("predictions", left=LEFT, top=TOP, **size)
        for (name, (x, y, warm_up)), colour, dash in zip(curves.items(), cycle(COLOURS), cycle(DASHES), strict=False):
            adapting = x <= warm_up
            later = ~adapting
            later[max(adapting.sum() - 1, 0)] = True  # the line goes on where the faint one ends
            axes.plot(x[adapting], y[adapting], dash, color=colour, linewidth=1.6, alpha=0.35)
            axes.plot(x[later], y[later], dash, color=colour, linewidth=1.6, label=name)
            axes.plot(x[-1:], y[-1:], "o", color=colour, markersize=3.5)
        # The first guesses are worse by hundreds of nats, the last ones differ by tenths.
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
        sheet.title("Prediction of held-out labs", "faint: the chain's warm-up" if adapted else "", left=LEFT)
    return sheet.figure


def checked(name: str, each: Progress) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the points of a method as numbers that can be drawn.

    Raises:
        ValueError: there are none, they do not fit together, one is not finite, or a time is not positive.
    """
    x, y = checked_curve(name, each.seconds, each.per_lab, log=False)
    if x.min() <= 0:
        raise ValueError(f"the seconds of {name!r} must be positive on a logarithmic axis, but begin at {x.min():g}")
    return x, y, each.warm_up
