import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zoo._stats import Estimate

ALL = "all parameters"


class VarianceRow(NamedTuple):
    """Gradient variance of one parameter with one estimator."""

    parameter: str
    """Name of the parameter, or ``ALL``."""
    estimator: str
    variance: Estimate
    """``Σ Var[g_i]`` over its elements."""
    reduction: Estimate
    """Variance of the first estimator divided by this one."""
    signal_to_noise: float
    """``‖E[g]‖ / sqrt(Σ Var[g_i])``, with the mean of the estimator with the least variance; NaN if not significant."""
    num_particles: int | None
    """Particles needed for the target signal-to-noise ratio; None if there is no signal."""


@dataclass(frozen=True)
class VarianceReport:
    """Variance of several estimators of the ELBO's gradient, at one value of the guide's parameters.

    ``print(report)`` prints a table; ``rows`` holds its numbers.
    """

    rows: tuple[VarianceRow, ...]
    num_particles: int
    """Particles per estimate."""
    num_samples: int
    """Estimates per estimator."""
    target_snr: float
    """Signal-to-noise ratio for which a number of particles is suggested."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Estimators that do not support the program, with the reason."""

    def row(self, estimator: str, parameter: str = ALL) -> VarianceRow:
        """Return the row of an estimator and a parameter.

        Raises:
            KeyError: there is no such row.
        """
        for row in self.rows:
            if (row.estimator, row.parameter) == (estimator, parameter):
                return row
        raise KeyError(f"there is no row for the estimator {estimator!r} and the parameter {parameter!r}")

    def __str__(self) -> str:
        title = (
            f"variance of the ELBO's gradient with {self.num_particles} particles, {self.num_samples} estimates each "
            f"[95 % interval]; SNR: |mean| / sd; needed: particles for an SNR of {self.target_snr:g}"
        )
        header = ("parameter", "estimator", "variance", "reduction", "SNR", "needed")
        cells = [header, *(_format_row(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        notes = [f"skipped: {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([title, *lines, *notes])


def _format_row(row: VarianceRow) -> tuple[str, ...]:
    snr = "–" if math.isnan(row.signal_to_noise) else f"{row.signal_to_noise:.2g}"
    needed = "no signal" if row.num_particles is None else f"{row.num_particles:,}"
    reduction = "–" if math.isnan(row.reduction.value) else f"× {row.reduction}"
    return row.parameter, row.estimator, str(row.variance), reduction, snr, needed
