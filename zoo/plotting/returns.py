from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from zoo.plotting._bands import Label, Run, draw_bands, draw_labels, label_width, make_bands
from zoo.plotting._style import MUTED_COLOR, PAGE_WIDTH, TITLE_HEIGHT, Page, figure_style

HEIGHT, LEFT, TOP, BOTTOM = 3.3, 0.65, TITLE_HEIGHT, 0.5  # inches: figure, and around its axes


def return_curves(
    runs: Mapping[str, Sequence[Run]], reward_threshold: int | float | None = None, ylabel: str = "return of an episode"
) -> Figure:
    """Return a figure of episode returns by environment steps over several seeds.

    Args:
        runs: by name, one pair per seed: environment steps and returns, both (P,).
        reward_threshold: return from which on the task counts as solved, drawn as a dashed line.
        ylabel: label of the y axis.

    Raises:
        ValueError: there are no runs; those of a name have no steps in common, or steps that do not increase; or an
            array has the wrong shape or values that are not finite.

    Example:
        >>> import numpy as np
        >>> steps = np.array([1000, 2000, 3000])
        >>> seeds = [(steps, np.array([20.0, 300.0, 480.0])), (steps, np.array([30.0, 100.0, 500.0]))]
        >>> return_curves({"CartPole-v1": seeds}, reward_threshold=475).axes[0].get_xlabel()
        'environment steps'
    """
    bands, threshold = make_bands(runs), []
    if reward_threshold is not None:
        threshold = [Label(f"– – solved at {reward_threshold:.4g}", reward_threshold, MUTED_COLOR)]
    width = PAGE_WIDTH - LEFT - label_width(bands, [label.text for label in threshold])
    with figure_style():
        page = Page(HEIGHT)
        axes = page.axes("returns", left=LEFT, top=TOP, width=width, height=HEIGHT - TOP - BOTTOM)
        axes.set(xlabel="environment steps", ylabel=ylabel)
        labels = draw_bands(axes, bands)
        if reward_threshold is not None:
            axes.axhline(reward_threshold, color=MUTED_COLOR, linewidth=0.9, linestyle=(0, (4, 3)))
        draw_labels(axes, [*labels, *threshold])
        has_interval = any(band.interval is not None for band in bands.values())
        subtitle = "line: interquartile mean over the seeds; band: its 95 % bootstrap interval" if has_interval else ""
        page.title(f"{ylabel[0].upper()}{ylabel[1:]} over training", subtitle, left=LEFT)
    return page.figure
