"""Diagnostics of variational inference: ELBO, Pareto k-hat, convergence and gradient variance."""

from zoo.inference.diagnostics.candidates import (
    BASIC,
    CONTROL_VARIATE,
    RAO_BLACKWELL,
    ScoreFunctionELBO,
    default_estimators,
)
from zoo.inference.diagnostics.convergence import (
    ConvergenceStatus,
    IterateAverage,
    StoppingRule,
    average_best_window,
    average_window,
    split_r_hat,
)
from zoo.inference.diagnostics.inference_data import to_inference_data
from zoo.inference.diagnostics.plots import elbo_figure, pareto_k_figure, posterior_figure
from zoo.inference.diagnostics.posterior_samples import (
    ElboEstimate,
    PosteriorSamples,
    elbo_estimate,
    sample_posterior,
)
from zoo.inference.diagnostics.psis import ParetoK, fit_pareto_k, k_hat_unavailable_reason, pareto_k, point_mass_reason
from zoo.inference.diagnostics.variance import ALL, VarianceReport, VarianceRow, variance_report

__all__ = [
    "ALL",
    "BASIC",
    "CONTROL_VARIATE",
    "RAO_BLACKWELL",
    "ConvergenceStatus",
    "ElboEstimate",
    "IterateAverage",
    "ParetoK",
    "PosteriorSamples",
    "ScoreFunctionELBO",
    "StoppingRule",
    "VarianceReport",
    "VarianceRow",
    "average_best_window",
    "average_window",
    "default_estimators",
    "elbo_estimate",
    "elbo_figure",
    "fit_pareto_k",
    "k_hat_unavailable_reason",
    "pareto_k",
    "pareto_k_figure",
    "point_mass_reason",
    "posterior_figure",
    "sample_posterior",
    "split_r_hat",
    "to_inference_data",
    "variance_report",
]
