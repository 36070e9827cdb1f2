from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from zoo._stats import Statistic, interquartile_mean, mean
from zoo.plotting._bands import Band, Run, make_band
from zoo.plotting._style import (
    CHAR_WIDTH,
    DPI,
    MAX_LABEL_LENGTH,
    MUTED_COLOR,
    PAGE_WIDTH,
    TEXT_SIZE,
    TITLE_HEIGHT,
    Page,
    figure_style,
    shorten,
)
from zoo.plotting._validation import Array
from zoo.plotting.curves import COLORS, LINE_STYLES

HEIGHT, LEFT, TOP, BOTTOM, BETWEEN = 3.3, 0.65, TITLE_HEIGHT, 0.5, 0.7  # inches: figure; around and between the axes
GAP, LABEL_HEIGHT = 0.08, 0.31  # inches: between axes and label; distance of labels


class Label(NamedTuple):
    """Text to the right of the axes, at a height in data coordinates."""

    text: str
    y: int | float
    color: str


def return_curves(
    runs: Mapping[str, Sequence[Run]], reward_threshold: int | float | None = None, ylabel: str = "return of an episode"
) -> Figure:
    """Return a figure of episode returns by environment steps over several seeds.

    Args:
        runs: environment steps and returns, both (P,), of each seed, for each name.
        reward_threshold: return from which on the task counts as solved, drawn as a dashed line if given.
        ylabel: label of the y axis.

    Raises:
        ValueError: there are no runs, or those of a name do not fit together; see ``make_band``.

    Example:
        >>> steps = np.array([1000, 2000, 3000])
        >>> seeds = [(steps, np.array([20.0, 300.0, 480.0])), (steps, np.array([30.0, 100.0, 500.0]))]
        >>> return_curves({"CartPole-v1": seeds}, reward_threshold=475).axes[0].get_xlabel()
        'environment steps'
    """
    bands = _make_bands(runs)
    solved = (
        []
        if reward_threshold is None
        else [Label(f"– – solved at {reward_threshold:.4g}", reward_threshold, MUTED_COLOR)]
    )
    width = label_width(bands, [label.text for label in solved])
    with figure_style():
        page = Page(HEIGHT)
        size = {"width": PAGE_WIDTH - LEFT - width, "height": HEIGHT - TOP - BOTTOM}
        axes = page.axes("returns", left=LEFT, top=TOP, **size)
        axes.set(xlabel="environment steps", ylabel=ylabel)
        labels = draw_bands(axes, bands)
        if reward_threshold is not None:
            axes.axhline(reward_threshold, color=MUTED_COLOR, linewidth=0.9, linestyle=(0, (4, 3)))
        draw_labels(axes, [*labels, *solved])
        several = any(band.interval is not None for band in bands.values())
        subtitle = "line: interquartile mean over the seeds; band: its 95 % bootstrap interval" if several else ""
        page.title(f"{ylabel[0].upper()}{ylabel[1:]} over training", subtitle, left=LEFT)
    return page.figure


def regret_curves(runs: Mapping[str, Sequence[tuple[Array, Array, Array]]]) -> Figure:
    """Return a figure of the cumulative regret by episode, and of the suboptimality of the greedy policy.

    Args:
        runs: numbers of episodes, cumulative regret and suboptimality of the greedy policy, all (P,), of each seed, for
            each name; in units of the value at the start.

    Raises:
        ValueError: there are no runs, or those of a name do not fit together; see ``make_band``.

    Example:
        >>> seed = (np.array([100, 200]), np.array([50.0, 60.0]), np.array([0.5, 0.1]))
        >>> [axes.get_label() for axes in regret_curves({"Boltzmann": [seed]}).axes]
        ['regret', 'gap']
    """
    regret = _make_bands({name: [(x, y) for x, y, _ in seeds] for name, seeds in runs.items()}, mean)
    gap = _make_bands({name: [(x, y) for x, _, y in seeds] for name, seeds in runs.items()}, mean)
    width = (PAGE_WIDTH - LEFT - BETWEEN - 2 * label_width(regret)) / 2
    second = LEFT + width + label_width(regret) + BETWEEN
    with figure_style():
        page = Page(HEIGHT)
        for name, left, bands, ylabel in (
            ("regret", LEFT, regret, "cumulative regret"),
            ("gap", second, gap, "V* − V of the greedy policy, at the start"),
        ):
            axes = page.axes(name, left=left, top=TOP, width=width, height=HEIGHT - TOP - BOTTOM)
            axes.set(xlabel="episodes", ylabel=ylabel)
            labels = draw_bands(axes, bands)
            axes.set_ylim(bottom=0)
            draw_labels(axes, labels)
        subtitle = "line: mean over the seeds; band: 95 % bootstrap interval"
        page.title("Regret of learning, and what the greedy policy still loses", subtitle, left=LEFT)
    return page.figure


def _make_bands(runs: Mapping[str, Sequence[Run]], statistic: Statistic = interquartile_mean) -> dict[str, Band]:
    if not runs:
        raise ValueError("runs is empty: there are no curves to draw")
    bands = {}
    for name, seeds in runs.items():
        try:
            bands[name] = make_band(seeds, statistic)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return bands


def _label_text(name: str, band: Band) -> str:
    return f"{shorten(name, MAX_LABEL_LENGTH)}\n" + (
        f"{band.num_runs} seeds" if band.num_runs > 1 else "1 seed: no band"
    )


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
    heights = _separate([inches * (label.y - low) / (high - low) for label in labels], LABEL_HEIGHT, inches)
    for label, height in zip(labels, heights, strict=True):
        style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "center"}
        axes.annotate(label.text, (1, height / inches), (72 * GAP, 0), color=label.color, fontsize=TEXT_SIZE, **style)


def _separate(heights: Sequence[float], distance: float, top: float) -> list[float]:
    """Return heights moved apart to a minimum distance: upwards, and downwards below ``top``."""
    order = sorted(range(len(heights)), key=lambda i: (heights[i], -i))  # of equal ones the first lies on top
    separated = list(heights)
    for below, above in pairwise(order):
        separated[above] = max(separated[above], separated[below] + distance)
    separated[order[-1]] = min(separated[order[-1]], top)
    for above, below in pairwise(reversed(order)):
        separated[below] = min(separated[below], separated[above] - distance)
    return separated
