import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zoo.stats import Estimate

ALL = "all parameters"


class VarianceRow(NamedTuple):
    """How much the gradient of one parameter varies by one estimator."""

    parameter: str
    """Its name, or ``ALL``."""
    estimator: str
    variance: Estimate
    """``Σ Var[g_i]`` over its elements."""
    reduction: Estimate
    """The first estimator's variance, in units of this."""
    signal_to_noise: float
    """``‖E[g]‖ / sqrt(Σ Var[g_i])``, with the mean as the least noisy estimator sees it; NaN if that is but noise."""
    particles: int | None
    """At so many the signal-to-noise ratio reaches the target; None if there is no signal."""


@dataclass(frozen=True)
class VarianceReport:
    """Variance of the ELBO's gradient by several estimators, at one setting of the guide's parameters.

    Print it for a table; its ``rows`` hold the same as numbers.
    """

    rows: tuple[VarianceRow, ...]
    particles: int
    """Of each estimate."""
    draws: int
    """Estimates by each estimator."""
    target: float
    """Signal-to-noise ratio that a number of particles is suggested for."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Estimators that do not go with the program, and why."""

    def row(self, estimator: str, parameter: str = ALL) -> VarianceRow:
        """Find a row.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.estimator, row.parameter) == (estimator, parameter):
                return row
        raise KeyError(f"there is no row for the estimator {estimator!r} and the parameter {parameter!r}")

    def __str__(self) -> str:
        title = (
            f"variance of the ELBO's gradient at {self.particles} particles, {self.draws} estimates each [95 % "
            f"interval]; SNR: |mean| / sd; needed: particles for an SNR of {self.target:g}"
        )
        heads = ("parameter", "estimator", "variance", "less than the first by", "SNR", "needed")
        cells = [heads, *(written(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        remarks = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        return "\n".join([title, *lines, *remarks])


def written(row: VarianceRow) -> tuple[str, ...]:
    """Write a row of the table."""
    ratio = "–" if math.isnan(row.signal_to_noise) else f"{row.signal_to_noise:.2g}"
    needed = "no signal" if row.particles is None else f"{row.particles:,}"
    reduction = "–" if math.isnan(row.reduction.value) else f"× {row.reduction}"
    return row.parameter, row.estimator, str(row.variance), reduction, ratio, needed
