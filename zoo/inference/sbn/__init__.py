"""Sigmoid belief networks."""

from zoo.inference.sbn.bounds import (
    Bound,
    exact_elbo,
    exact_iwae_bound,
    log_evidence,
    negative_elbo,
    negative_iwae_bound,
)
from zoo.inference.sbn.module import SigmoidBeliefNetwork
from zoo.inference.sbn.network import BeliefNetwork, ConditionedNetwork, Posterior

__all__ = [
    "BeliefNetwork",
    "Bound",
    "ConditionedNetwork",
    "Posterior",
    "SigmoidBeliefNetwork",
    "exact_elbo",
    "exact_iwae_bound",
    "log_evidence",
    "negative_elbo",
    "negative_iwae_bound",
]
