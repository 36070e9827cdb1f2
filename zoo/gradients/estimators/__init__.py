"""Gradient estimators behind one protocol, one file per paper; ``estimator=NAME`` of a configuration."""

from zoo.gradients.estimators.enumeration import MAX_UNITS, Enumeration, enumerate_log_probs, enumerate_states
from zoo.gradients.estimators.estimator import (
    Evaluation,
    GradientEstimate,
    GradientEstimator,
    LatentModel,
    Sampler,
    bernoulli_sampler,
    sum_terms,
)
from zoo.gradients.estimators.nvil import LayerwiseReinforce, elbo_objective, local_signals
from zoo.gradients.estimators.registry import ESTIMATORS, complete_options
from zoo.gradients.estimators.vimco import VIMCO, VIMCOBaseline, iwae_bound, iwae_objective, leave_one_out_bounds

__all__ = [
    "ESTIMATORS",
    "MAX_UNITS",
    "VIMCO",
    "Enumeration",
    "Evaluation",
    "GradientEstimate",
    "GradientEstimator",
    "LatentModel",
    "LayerwiseReinforce",
    "Sampler",
    "VIMCOBaseline",
    "bernoulli_sampler",
    "complete_options",
    "elbo_objective",
    "enumerate_log_probs",
    "enumerate_states",
    "iwae_bound",
    "iwae_objective",
    "leave_one_out_bounds",
    "local_signals",
    "sum_terms",
]
