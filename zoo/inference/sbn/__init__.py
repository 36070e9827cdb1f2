"""Sigmoid belief networks."""

from zoo.inference.sbn.bounds import (
    Bound,
    exact_elbo,
    exact_iwae_bound,
    log_evidence,
    negative_elbo,
    negative_iwae_bound,
)
from zoo.inference.sbn.experiment import BeliefNetworkExperiment
from zoo.inference.sbn.module import SigmoidBeliefNetwork
from zoo.inference.sbn.network import BeliefNetwork, ConditionedNetwork, Posterior, binary_pixels

__all__ = [
    "BeliefNetwork",
    "BeliefNetworkExperiment",
    "Bound",
    "ConditionedNetwork",
    "Posterior",
    "SigmoidBeliefNetwork",
    "binary_pixels",
    "exact_elbo",
    "exact_iwae_bound",
    "log_evidence",
    "negative_elbo",
    "negative_iwae_bound",
]
