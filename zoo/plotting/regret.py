from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from zoo.plotting.bands import mean
from zoo.plotting.checks import Array
from zoo.plotting.returns import draw_bands, label_width, named_bands, write_labels
from zoo.plotting.style import TITLE, WIDTH, Sheet, house_style

HEIGHT, LEFT, TOP, BOTTOM, BETWEEN = 3.3, 0.65, TITLE, 0.5, 0.7  # inches: all of it, around and between the axes


def regret_curves(runs: Mapping[str, Sequence[tuple[Array, Array, Array]]]) -> Figure:
    """Draw what learning cost by the episode: the regret summed up, and how far the greedy policy is from the best.

    Args:
        runs: for each name the runs that differ in their seeds alone: episodes begun, cumulative regret and gap of the
            greedy policy, all (P,), in units of the start's value.

    Raises:
        ValueError: there is no run, or those of a name do not fit together; see ``band``.

    Example:
        >>> import numpy as np
        >>> seed = (np.array([100, 200]), np.array([50.0, 60.0]), np.array([0.5, 0.1]))
        >>> [axes.get_label() for axes in regret_curves({"Boltzmann": [seed]}).axes]
        ['regret', 'gap']
    """
    regret = named_bands({name: [(x, y) for x, y, _ in seeds] for name, seeds in runs.items()}, mean)
    gap = named_bands({name: [(x, y) for x, _, y in seeds] for name, seeds in runs.items()}, mean)
    width = (WIDTH - LEFT - BETWEEN - 2 * label_width(regret)) / 2
    second = LEFT + width + label_width(regret) + BETWEEN
    with house_style():
        sheet = Sheet(HEIGHT)
        for label, left, bands, ylabel in (
            ("regret", LEFT, regret, "cumulative regret"),
            ("gap", second, gap, "V* − V of the greedy policy, at the start"),
        ):
            axes = sheet.axes(label, left=left, top=TOP, width=width, height=HEIGHT - TOP - BOTTOM)
            axes.set(xlabel="episodes", ylabel=ylabel)
            labels = draw_bands(axes, bands)
            axes.set_ylim(bottom=0)
            write_labels(axes, labels)
        key = "line: mean over the seeds; band: 95 % bootstrap interval"
        sheet.title("Regret of learning, and what the greedy policy still loses", key, left=LEFT)
    return sheet.figure
