from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from zoo.plotting.bands import Band, Run, Statistic, band, interquartile_mean
from zoo.plotting.curves import COLOURS, DASHES
from zoo.plotting.style import DPI, LABEL, LETTER, MUTED, TEXT, TITLE, WIDTH, Sheet, house_style, shortened

HEIGHT, LEFT, TOP, BOTTOM = 3.3, 0.65, TITLE, 0.5  # inches: all of it, and around the axes
GAP, ROW = 0.08, 0.31  # inches: between the axes and a label, and from one label to the next


def return_curves(
    runs: Mapping[str, Sequence[Run]], reward_threshold: int | float | None = None, ylabel: str = "return of an episode"
) -> Figure:
    """Draw how the returns of episodes grew with the environment steps, over several seeds.

    Args:
        runs: for each name the runs that differ in their seeds alone: environment steps and returns, both (P,).
        reward_threshold: return from which on the task counts as solved, a dashed line; None for no line.
        ylabel: what the returns are.

    Raises:
        ValueError: there is no run, or those of a name do not fit together; see ``band``.

    Example:
        >>> import numpy as np
        >>> steps = np.array([1000, 2000, 3000])
        >>> seeds = [(steps, np.array([20.0, 300.0, 480.0])), (steps, np.array([30.0, 100.0, 500.0]))]
        >>> return_curves({"CartPole-v1": seeds}, reward_threshold=475).axes[0].get_xlabel()
        'environment steps'
    """
    bands = named_bands(runs)
    solved = (
        [] if reward_threshold is None else [Label(f"– – solved at {reward_threshold:.4g}", reward_threshold, MUTED)]
    )
    width = label_width(bands, [label.text for label in solved])
    with house_style():
        sheet = Sheet(HEIGHT)
        size = {"width": WIDTH - LEFT - width, "height": HEIGHT - TOP - BOTTOM}
        axes = sheet.axes("returns", left=LEFT, top=TOP, **size)
        axes.set(xlabel="environment steps", ylabel=ylabel)
        labels = draw_bands(axes, bands)
        if reward_threshold is not None:
            axes.axhline(reward_threshold, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        write_labels(axes, [*labels, *solved])
        several = any(each.interval is not None for each in bands.values())
        key = "line: interquartile mean over the seeds; band: its 95 % bootstrap interval" if several else ""
        sheet.title(f"{ylabel[0].upper()}{ylabel[1:]} over training", key, left=LEFT)
    return sheet.figure


def named_bands(runs: Mapping[str, Sequence[Run]], statistic: Statistic = interquartile_mean) -> dict[str, Band]:
    """Take the statistic of the runs of each name.

    Raises:
        ValueError: there are none, or as ``band``, and the sentence says the name.
    """
    if not runs:
        raise ValueError("runs is empty: there is no curve to draw")
    bands = {}
    for name, seeds in runs.items():
        try:
            bands[name] = band(seeds, statistic)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return bands


def described(name: str, each: Band) -> str:
    r"""Write a name, and of how many runs its line is.

    Example:
        >>> import numpy as np
        >>> one = np.zeros(1)
        >>> described("CartPole-v1", Band(one, one, None, runs=1))
        'CartPole-v1\n1 seed: no band'
    """
    return f"{shortened(name, LABEL)}\n" + (f"{each.runs} seeds" if each.runs > 1 else "1 seed: no band")


def label_width(bands: Mapping[str, Band], others: Sequence[str] = ()) -> float:
    """Estimate the room that the labels of lines and other ones need, in inches."""
    lines = [line for name, each in bands.items() for line in described(name, each).split("\n")]
    lines += others
    return GAP + LETTER * max(map(len, lines))


class Label(NamedTuple):
    """What is written at the right of the axes."""

    text: str
    y: int | float
    colour: str


def draw_bands(axes: Axes, bands: Mapping[str, Band]) -> list[Label]:
    """Draw each line and the band around it, and say what to write at its end."""
    labels = []
    for (name, each), colour, dash in zip(bands.items(), cycle(COLOURS), cycle(DASHES), strict=False):
        if len(each.x) == 1:  # a line or a band through a single point would be invisible
            bars = None if each.interval is None else np.abs(np.stack(each.interval) - each.middle)
            axes.errorbar(each.x, each.middle, yerr=bars, fmt="o", color=colour, markersize=4)
        else:
            axes.plot(each.x, each.middle, dash, color=colour, linewidth=1.6)
            if each.interval is not None:
                axes.fill_between(each.x, *each.interval, color=colour, alpha=0.18, linewidth=0)
        labels.append(Label(described(name, each), float(each.middle[-1]), colour))
    axes.grid(axis="y")
    longest, points = max(each.x[-1] for each in bands.values()), max(len(each.x) for each in bands.values())
    axes.set_xlim(0, longest if points > 1 else 2 * max(longest, 1))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return labels


def write_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write each at the height of its y, or as near to it as the others allow."""
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().height / DPI
    heights = spread([inches * (label.y - low) / (high - low) for label in labels], ROW, inches)
    for label, height in zip(labels, heights, strict=True):
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center"}
        axes.annotate(label.text, (1, height / inches), (72 * GAP, 0), color=label.colour, fontsize=TEXT, **place)


def spread(heights: Sequence[float], distance: float, top: float) -> list[float]:
    """Move labels apart that would overlap: upwards, and down again where there is no more room.

    Example:
        >>> spread([1.0, 0.75, 5.0], distance=0.5, top=5.0)
        [1.25, 0.75, 5.0]
    """
    order = sorted(range(len(heights)), key=lambda i: (heights[i], -i))  # of equal ones the first comes to lie on top
    places = list(heights)
    for below, above in pairwise(order):
        places[above] = max(places[above], places[below] + distance)
    places[order[-1]] = min(places[order[-1]], top)
    for above, below in pairwise(reversed(order)):
        places[below] = min(places[below], places[above] - distance)
    return places
