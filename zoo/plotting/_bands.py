from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from zoo._stats import Statistic, bootstrap_interval, interquartile_mean
from zoo.plotting._validation import Array, ArrayValidator

NUM_POINTS = 200

Run = tuple[Array, Array]
"""x and y, both ``(P,)``; x increases."""


class Band(NamedTuple):
    """A statistic over several runs by x, and its 95 % confidence interval."""

    x: Float[np.ndarray, " points"]
    center: Float[np.ndarray, " points"]
    interval: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]] | None
    """Lower and upper end; None for a single run."""
    num_runs: int


def make_band(
    runs: Sequence[Run], statistic: Statistic = interquartile_mean, spacing: Callable[..., np.ndarray] = np.linspace
) -> Band:
    """Return a statistic of the runs at each point of a common grid, with its confidence interval.

    The grid covers the interval of x that all runs have in common. Runs are interpolated linearly.

    Args:
        runs: x and y of each run.
        statistic: function of the values of all runs, such as ``mean``.
        spacing: ``np.linspace``, or ``np.geomspace`` for a logarithmic grid.

    Raises:
        ValueError: there is no run, x and y of one differ in length, its x does not increase, or the runs have no x in
            common.

    Example:
        >>> steps = np.array([0.0, 100.0])
        >>> learned = make_band([(steps, np.array([0.0, 8.0])), (steps, np.array([0.0, 10.0]))])
        >>> [float(values[-1]) for values in (learned.x, learned.center, *learned.interval)]
        [100.0, 9.0, 8.0, 10.0]
    """
    checked = [_check_run(number, *run) for number, run in enumerate(runs, start=1)]
    if not checked:
        raise ValueError("there are no runs to draw")
    start, end = max(x[0] for x, _ in checked), min(x[-1] for x, _ in checked)
    if start > end:
        raise ValueError(f"the runs have no x in common: one starts at {start:g}, another ends at {end:g}")
    grid = np.unique(spacing(start, end, NUM_POINTS))
    values = np.stack([np.interp(grid, x, y) for x, y in checked])
    interval = None if len(values) == 1 else bootstrap_interval(values, statistic)
    return Band(grid, statistic(values), interval, len(values))


def _check_run(number: int, x: Array, y: Array) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Return x and y of a run as float64 arrays."""
    validator = ArrayValidator()
    xs, ys = validator.real(f"x of run {number}", x, "P"), validator.real(f"y of run {number}", y, "P")
    if (np.diff(xs) <= 0).any():
        raise ValueError(f"x of run {number} must increase")
    return xs, ys
