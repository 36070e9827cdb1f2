"""Summaries of a metric over seeds, as text for tables; a seed without the metric has the value infinity."""

import math
import statistics
from collections.abc import Callable, Sequence

from zoo._stats import student_t_half_width


def mean_and_interval(values: Sequence[float]) -> str:
    """Return the mean with its 95 % interval (Student's t) if there are several seeds; ``?`` if a value is missing."""
    if not all(map(math.isfinite, values)):
        return "?"
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    half = student_t_half_width(statistics.stdev(values), len(values))
    return f"{mean:.2f} ± {half:.2f}"


def percent(values: Sequence[float]) -> str:
    """Return ``mean_and_interval`` of fractions in percent."""
    return mean_and_interval([100 * value for value in values])


def median_and_max(values: Sequence[float]) -> str:
    median, largest = (f"{x:,.0f}" if math.isfinite(x) else "never" for x in (statistics.median(values), max(values)))
    return f"{median}; {largest}"


def max_abs(values: Sequence[float]) -> str:
    """Return the maximum absolute value; up to 1e-9, which is rounding error, it is 0."""
    value = max(map(abs, values))
    return f"{value:.2g}" if value > 1e-9 else "0"


def formatted(reduce: Callable[[Sequence[float]], float], spec: str) -> Callable[[Sequence[float]], str]:
    """Return a summary that formats ``min`` or ``max`` of the values."""
    return lambda values: format(reduce(values), spec)
