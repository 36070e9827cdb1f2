"""Sigmoid belief networks."""

from zoo.inference.sbn.bounds import Bound, negative_elbo, negative_iwae_bound
from zoo.inference.sbn.enumeration import exact_elbo, exact_iwae_bound, log_evidence
from zoo.inference.sbn.module import SigmoidBeliefNetwork
from zoo.inference.sbn.network import BeliefNetwork, Posterior, bernoulli_sampler
from zoo.inference.sbn.objective import BoundObjective, elbo_objective, iwae_objective, local_signals

__all__ = [
    "BeliefNetwork",
    "Bound",
    "BoundObjective",
    "Posterior",
    "SigmoidBeliefNetwork",
    "bernoulli_sampler",
    "elbo_objective",
    "exact_elbo",
    "exact_iwae_bound",
    "iwae_objective",
    "local_signals",
    "log_evidence",
    "negative_elbo",
    "negative_iwae_bound",
]
