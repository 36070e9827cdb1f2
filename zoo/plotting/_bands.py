from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from zoo._stats import Statistic, bootstrap_interval, interquartile_mean
from zoo.plotting._style import CHAR_WIDTH, COLORS, DPI, LINE_STYLES, MAX_LABEL_LENGTH, TEXT_SIZE, shorten
from zoo.plotting._validation import Array, check_points

NUM_POINTS = 200
GAP, LABEL_HEIGHT = 0.08, 0.31  # inches: between axes and labels; minimum distance of two labels

Run = tuple[Array, Array]
"""x and y, both ``(P,)``; x increases."""


class Band(NamedTuple):
    """A statistic over several runs by x, and its 95 % confidence interval."""

    x: Float[np.ndarray, " points"]
    center: Float[np.ndarray, " points"]
    interval: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]] | None
    """Lower and upper end; None for a single run."""
    num_runs: int


class Label(NamedTuple):
    """Text to the right of the axes; ``y`` is its height in data coordinates."""

    text: str
    y: int | float
    color: str


def make_bands(runs: Mapping[str, Sequence[Run]], statistic: Statistic = interquartile_mean) -> dict[str, Band]:
    """Return a band over the runs of each name; see ``make_band``."""
    if not runs:
        raise ValueError("runs is empty: there are no curves to draw")
    bands = {}
    for name, seeds in runs.items():
        try:
            bands[name] = make_band(seeds, statistic)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return bands


def make_band(runs: Sequence[Run], statistic: Statistic = interquartile_mean) -> Band:
    """Interpolate the runs linearly on a common grid, and return their statistic there with its interval."""
    if not runs:
        raise ValueError("there are no runs to draw")
    checked = [check_points(f"run {number}", *run) for number, run in enumerate(runs, start=1)]
    for number, (x, _) in enumerate(checked, start=1):
        if (np.diff(x) <= 0).any():
            raise ValueError(f"x of run {number} must increase")
    start, end = max(x[0] for x, _ in checked), min(x[-1] for x, _ in checked)
    if start > end:
        raise ValueError(f"the runs have no x in common: one starts at {start:g}, another ends at {end:g}")
    grid = np.unique(np.linspace(start, end, NUM_POINTS))
    values = np.stack([np.interp(grid, x, y) for x, y in checked])
    interval = None if len(values) == 1 else bootstrap_interval(values, statistic)
    return Band(grid, statistic(values), interval, len(values))


def _label_text(name: str, band: Band) -> str:
    seeds = f"{band.num_runs} seeds" if band.num_runs > 1 else "1 seed: no band"
    return f"{shorten(name, MAX_LABEL_LENGTH)}\n{seeds}"


def label_width(bands: Mapping[str, Band], others: Sequence[str] = ()) -> float:
    """Return the approximate width in inches that the labels of bands and other lines of text need."""
    lines = [line for name, band in bands.items() for line in _label_text(name, band).split("\n")]
    return GAP + CHAR_WIDTH * max(map(len, [*lines, *others]))


def draw_bands(axes: Axes, bands: Mapping[str, Band]) -> list[Label]:
    """Draw bands, and return a label for the end of each."""
    labels = []
    for (name, band), color, line_style in zip(bands.items(), cycle(COLORS), cycle(LINE_STYLES), strict=False):
        if len(band.x) == 1:  # a line or a band through a single point would be invisible
            bars = None if band.interval is None else np.abs(np.stack(band.interval) - band.center)
            axes.errorbar(band.x, band.center, yerr=bars, fmt="o", color=color, markersize=4)
        else:
            axes.plot(band.x, band.center, line_style, color=color, linewidth=1.6)
            if band.interval is not None:
                axes.fill_between(band.x, *band.interval, color=color, alpha=0.18, linewidth=0)
        labels.append(Label(_label_text(name, band), float(band.center[-1]), color))
    axes.grid(axis="y")
    longest, points = max(band.x[-1] for band in bands.values()), max(len(band.x) for band in bands.values())
    axes.set_xlim(0, longest if points > 1 else 2 * max(longest, 1))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return labels


def draw_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label at the height of its y, or as close to it as the others allow."""
    low, high = axes.get_ylim()
    inches = axes.get_window_extent().height / DPI
    heights = separate([inches * (label.y - low) / (high - low) for label in labels], LABEL_HEIGHT, inches)
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center"}
    for label, height in zip(labels, heights, strict=True):
        axes.annotate(label.text, (1, height / inches), (72 * GAP, 0), color=label.color, fontsize=TEXT_SIZE, **style)


def separate(heights: Sequence[float], distance: float, top: float) -> list[float]:
    """Return heights pushed up until they are ``distance`` apart, then down so that the highest is at most ``top``."""
    order = sorted(range(len(heights)), key=lambda i: (heights[i], -i))  # among equal heights, the first is on top
    separated = list(heights)
    for below, above in pairwise(order):
        separated[above] = max(separated[above], separated[below] + distance)
    separated[order[-1]] = min(separated[order[-1]], top)
    for above, below in pairwise(reversed(order)):
        separated[below] = min(separated[below], separated[above] - distance)
    return separated
