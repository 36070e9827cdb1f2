from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from zoo._stats import mean
from zoo.plotting._bands import draw_bands, draw_labels, label_width, make_bands
from zoo.plotting._style import PAGE_WIDTH, TITLE_HEIGHT, Page, figure_style
from zoo.plotting._validation import Array

HEIGHT, LEFT, TOP, BOTTOM, BETWEEN = 3.3, 0.65, TITLE_HEIGHT, 0.5, 0.7  # inches: figure; around and between the axes


def regret_curves(runs: Mapping[str, Sequence[tuple[Array, Array, Array]]]) -> Figure:
    """Return a figure of the cumulative regret by episode, and of the suboptimality of the greedy policy.

    Args:
        runs: numbers of episodes, cumulative regret and suboptimality of the greedy policy, all (P,), of each seed, for
            each name; in units of the value at the start.

    Raises:
        ValueError: there are no runs, or those of a name have no episodes in common.

    Example:
        >>> import numpy as np
        >>> seed = (np.array([100, 200]), np.array([50.0, 60.0]), np.array([0.5, 0.1]))
        >>> [axes.get_label() for axes in regret_curves({"Boltzmann": [seed]}).axes]
        ['regret', 'gap']
    """
    regret = make_bands({name: [(x, y) for x, y, _ in seeds] for name, seeds in runs.items()}, mean)
    gap = make_bands({name: [(x, y) for x, _, y in seeds] for name, seeds in runs.items()}, mean)
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
