"""What to make of a fitted guide: how good its bound is, whether to trust it, when to stop, and what made it noisy."""

from zoo.inference.diagnostics.candidates import BASIC, CONTROL_VARIATE, RAO_BLACKWELL, usual_estimators
from zoo.inference.diagnostics.convergence import (
    IterateAverage,
    StoppingRule,
    Verdict,
    average,
    settled_average,
    split_r_hat,
)
from zoo.inference.diagnostics.elbo_estimate import ElboEstimate, elbo_estimate
from zoo.inference.diagnostics.inference_data import to_inference_data
from zoo.inference.diagnostics.plots import elbo_figure, pareto_k_figure, posterior_figure
from zoo.inference.diagnostics.posterior_samples import Draws, draw
from zoo.inference.diagnostics.psis import ParetoK, no_k_hat, of_points, pareto_k, tail_index
from zoo.inference.diagnostics.variance import variance_report
from zoo.inference.diagnostics.variance_table import ALL, VarianceReport, VarianceRow

__all__ = [
    "ALL",
    "BASIC",
    "CONTROL_VARIATE",
    "RAO_BLACKWELL",
    "Draws",
    "ElboEstimate",
    "IterateAverage",
    "ParetoK",
    "StoppingRule",
    "VarianceReport",
    "VarianceRow",
    "Verdict",
    "average",
    "draw",
    "elbo_estimate",
    "elbo_figure",
    "no_k_hat",
    "of_points",
    "pareto_k",
    "pareto_k_figure",
    "posterior_figure",
    "settled_average",
    "split_r_hat",
    "tail_index",
    "to_inference_data",
    "usual_estimators",
    "variance_report",
]
