"""Sigmoid belief networks."""

from zoo.inference.sbn.bounds import Bound, negative_elbo, negative_importance_weighted_bound
from zoo.inference.sbn.enumeration import exact_elbo, exact_multi_sample_bound, log_evidence
from zoo.inference.sbn.module import SigmoidBeliefNetwork
from zoo.inference.sbn.network import BeliefNetwork, Posterior, threshold
from zoo.inference.sbn.objective import BoundObjective, elbo_objective, local_signals, multi_sample_objective

__all__ = [
    "BeliefNetwork",
    "Bound",
    "BoundObjective",
    "Posterior",
    "SigmoidBeliefNetwork",
    "elbo_objective",
    "exact_elbo",
    "exact_multi_sample_bound",
    "local_signals",
    "log_evidence",
    "multi_sample_objective",
    "negative_elbo",
    "negative_importance_weighted_bound",
    "threshold",
]
